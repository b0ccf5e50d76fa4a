//! Serves a simulated replica set until standard input ends: `serve [members] [version]`.
//!
//! Lines on standard input order things: `stepdown`, `crash N`, `restart N`, `elect N`, `partition N`, `heal`.

#![allow(clippy::print_stdout, reason = "an example talks to its user")]

use std::io::{self, BufRead};

use changestream_sim::Deployment;

fn main() -> io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let members = arguments.next().and_then(|n| n.parse().ok()).unwrap_or(3);
    let version = arguments.next().unwrap_or_else(|| "4.4".to_owned());
    let mut config = if members == 0 {
        Deployment::standalone()
    } else {
        Deployment::replica_set(members)
    };
    if let Some(user) = arguments.next() {
        config = config.user(user, "pencil");
    }
    let deployment = config.server_version(version).start()?;
    println!("{}", deployment.uri());
    for line in io::stdin().lock().lines() {
        let line = line?;
        let (order, member) = line.split_once(' ').unwrap_or((&line, "0"));
        let member = member.parse().unwrap_or(0);
        match order {
            "stepdown" => deployment.step_down(),
            "crash" => deployment.crash(member),
            "restart" => deployment.restart(member),
            "partition" => deployment.partition(&[member]),
            "heal" => deployment.heal(),
            "elect" => println!("{}", deployment.elect(member)),
            _ => println!("primary is {:?}", deployment.primary()),
        }
    }
    Ok(())
}
