//! Requests that wait for their replies.

/// The requests of the work's that are not answered: one, and while its reply arrives the one that follows.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Awaited {
    pub(super) first: Option<i32>,
    next: Option<i32>,
}

impl Awaited {
    /// A request was sent.
    pub(super) fn ask(&mut self, request: Option<i32>) {
        if self.first.is_none() {
            self.first = request;
        } else {
            self.next = request;
        }
    }

    /// The first one's last reply has come.
    pub(super) fn answered(&mut self) {
        self.first = self.next.take();
    }
}
