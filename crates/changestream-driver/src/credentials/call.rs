//! One call of the callback for tokens, for all streams of a client that need one.

use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Wake, Waker};

use changestream_core::Error;
use changestream_core::auth::{OidcRequest, OidcToken};

use super::Boxed;

/// The call that is under way, if there is one: "only one call to the configured provider or OIDC callback can happen at a
/// time" (Authentication specification, "Credential Caching").
#[derive(Clone, Default)]
pub(super) struct Gate(Arc<Mutex<Weak<Call>>>);

/// A call. Whichever stream is polled drives it: one that rests holds up nobody.
pub(crate) struct Call {
    request: OidcRequest,
    gate: Gate,
    work: Mutex<Work>,
    wakers: Arc<Wakers>,
}

enum Work {
    Waiting(Boxed<OidcToken>),
    /// Somebody polls it at this moment.
    Polled,
    Done(Result<OidcToken, Error>),
}

impl Gate {
    /// Joins the call that is under way, or begins one.
    pub(super) fn join(
        &self,
        request: OidcRequest,
        begin: impl FnOnce(OidcRequest) -> Boxed<OidcToken>,
    ) -> Arc<Call> {
        let mut current = lock(&self.0);
        if let Some(call) = current.upgrade() {
            return call;
        }
        // Another stream may have got one since this one looked.
        let work = match request.known_token() {
            Some(token) => Work::Done(Ok(token)),
            None => Work::Waiting(begin(request.clone())),
        };
        let call = Arc::new(Call {
            request,
            gate: self.clone(),
            work: Mutex::new(work),
            wakers: Arc::default(),
        });
        *current = Arc::downgrade(&call);
        call
    }

    fn leave(&self, call: &Call) {
        let mut current = lock(&self.0);
        if std::ptr::eq(current.as_ptr(), call) {
            *current = Weak::new();
        }
    }
}

impl Call {
    pub(super) fn poll(&self, waker: &Waker) -> Poll<Result<OidcToken, Error>> {
        self.wakers.add(waker);
        let taken = {
            let mut work = lock(&self.work);
            match mem::replace(&mut *work, Work::Polled) {
                Work::Waiting(future) => future,
                Work::Polled => return Poll::Pending,
                Work::Done(result) => {
                    *work = Work::Done(result.clone());
                    return Poll::Ready(result);
                }
            }
        };
        // Without the lock: the callback is foreign code, and may take its time.
        let mut turn = Turn {
            call: self,
            next: Work::Done(Err(Error::system(
                "the callback for tokens of MONGODB-OIDC panicked",
            ))),
        };
        let mut future = taken;
        let waker = Waker::from(Arc::clone(&self.wakers));
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Pending => {
                turn.next = Work::Waiting(future);
                Poll::Pending
            }
            Poll::Ready(result) => {
                if let Ok(token) = &result {
                    // Before the gate opens, so that whoever comes next finds it.
                    self.request.keep(token);
                }
                turn.next = Work::Done(result.clone());
                Poll::Ready(result)
            }
        }
    }
}

/// Puts the work back, whatever happens.
struct Turn<'a> {
    call: &'a Call,
    next: Work,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let next = mem::replace(&mut self.next, Work::Polled);
        let is_done = matches!(next, Work::Done(_));
        *lock(&self.call.work) = next;
        if is_done {
            self.call.gate.leave(self.call);
            self.call.wakers.wake_all();
        }
    }
}

/// The tasks of all streams that wait.
#[derive(Default)]
struct Wakers(Mutex<Vec<Waker>>);

impl Wakers {
    fn add(&self, waker: &Waker) {
        let mut wakers = lock(&self.0);
        if !wakers.iter().any(|known| known.will_wake(waker)) {
            wakers.push(waker.clone());
        }
    }

    fn wake_all(&self) {
        let wakers = mem::take(&mut *lock(&self.0));
        for waker in wakers {
            waker.wake();
        }
    }
}

impl Wake for Wakers {
    fn wake(self: Arc<Self>) {
        self.wake_all();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
