//! What goes wrong in the deployment: one thing after the other, decided by the seed.

use std::time::{Duration, Instant};

use bson::{Document, doc};
use changestream_core::random::Random;
use changestream_sim::{Deployment, RunningDeployment};

use crate::progress::Progress;
use crate::settings::Settings;

/// Lets something go wrong every few seconds until it is stopped, and then heals everything.
pub(crate) fn inject(deployment: &RunningDeployment, settings: &Settings, progress: &Progress) {
    let mut random = settings.random().fork();
    let few = i32::try_from(settings.streams / 10 + 1).unwrap_or(i32::MAX);
    loop {
        let pause = Duration::from_millis(4_000 + random.below(4_000) as u64);
        if !progress.goes_on_after(pause) {
            break;
        }
        heal(deployment);
        // They are kept for tests that ask, and nobody does here.
        deployment.with(|d, _| d.clear_commands());
        if let Some(primary) = deployment.primary() {
            progress.failed(strike(deployment, primary, few, &mut random));
        }
    }
    heal(deployment);
}

/// One in eight strikes all streams at once, the others a tenth of them: a deployment in one process needs a while until a
/// thousand streams are back.
fn strike(deployment: &RunningDeployment, primary: usize, few: i32, random: &mut Random) -> &'static str {
    if random.below(8) == 0 {
        return strike_all(deployment, primary, random);
    }
    match random.below(5) {
        0 => {
            deployment.with(|d, now| hand_over(d, now, primary));
            "elections"
        }
        1 => {
            kill_cursors(deployment, random);
            "killed cursors of a member"
        }
        2 => {
            fail(
                deployment,
                few,
                doc! { "failCommands": ["getMore"], "closeConnection": true },
            );
            "connection resets"
        }
        3 => {
            let labels = ["ResumableChangeStreamError"];
            let data = doc! { "failCommands": ["getMore"], "errorCode": INTERRUPTED, "errorLabels": labels.as_slice() };
            fail(deployment, few, data);
            "resumable errors"
        }
        _ => {
            let data = doc! { "failCommands": ["getMore"], "blockConnection": true, "blockTimeMS": 2_000 };
            fail(deployment, few, data);
            "slow replies"
        }
    }
}

fn strike_all(deployment: &RunningDeployment, primary: usize, random: &mut Random) -> &'static str {
    match random.below(4) {
        0 => {
            deployment.crash(primary);
            "crashes"
        }
        1 => {
            deployment.drop_connections(primary);
            "connection losses"
        }
        2 => {
            deployment.with(|d, now| {
                hand_over(d, now, primary);
                d.drop_connections(now, primary);
            });
            "elections with connection losses"
        }
        _ => {
            deployment.partition(&[primary]);
            "partitions"
        }
    }
}

/// Another member becomes primary. One that is told to step down does not stand again for a minute, and three in a minute
/// would leave no primary.
fn hand_over(deployment: &mut Deployment, now: Instant, primary: usize) {
    let next = (primary + 1) % deployment.member_count();
    if !deployment.elect(now, next) {
        deployment.step_down(now);
    }
}

/// A tenth of the cursors of some member.
fn kill_cursors(deployment: &RunningDeployment, random: &mut Random) {
    deployment.with(|d, now| {
        let member = random.below(d.member_count());
        for cursor in d.cursors(member) {
            if random.below(10) == 0 {
                d.kill_cursor(now, member, cursor);
            }
        }
    });
}

/// So many commands fail, at every member.
fn fail(deployment: &RunningDeployment, times: i32, data: Document) {
    let command = doc! { "configureFailPoint": "failCommand", "mode": { "times": times }, "data": data };
    deployment.with(|d, _| {
        for member in 0..d.member_count() {
            // The command is well-formed, and there is nothing else to go wrong.
            drop(d.fail_command(member, &command));
        }
    });
}

fn heal(deployment: &RunningDeployment) {
    let off = doc! { "configureFailPoint": "failCommand", "mode": "off" };
    deployment.with(|d, now| {
        d.heal(now);
        for member in 0..d.member_count() {
            d.restart(now, member);
            drop(d.fail_command(member, &off));
        }
    });
}

/// `InterruptedAtShutdown` of MongoDB's error codes.
const INTERRUPTED: i32 = 11600;
