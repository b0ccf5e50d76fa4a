//! The adapters, so far as tests use them: every call waits for its end.

use std::future::Future;

use bson::Document;
use changestream_driver::{ChangeEvent, ChangeStream, Error, Mode, Opening, Running, Watch};

/// An adapter.
pub(super) trait Adapter: 'static {
    /// What its clients are made of.
    type Mode: Mode + Default;

    /// What runs it on the thread that this is called on.
    fn new() -> Self;
    fn open(&self, watch: Watch<Self::Mode>) -> Result<<Self::Mode as Mode>::Stream, Error>;
    fn run(&self, running: <Self::Mode as Mode>::Running) -> Result<Document, Error>;
    fn next(&self, stream: &mut <Self::Mode as Mode>::Stream) -> Option<Result<ChangeEvent, Error>>;
    fn try_next(&self, stream: &mut <Self::Mode as Mode>::Stream) -> Result<Option<ChangeEvent>, Error>;
    fn close(&self, stream: &mut <Self::Mode as Mode>::Stream);
}

/// An adapter whose calls are awaited.
macro_rules! awaited {
    ($name:ident, $runtime:ty, $executor:ty, $new:expr, $block_on:expr) => {
        pub(super) struct $name($executor);

        impl $name {
            fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
                ($block_on)(&self.0, future)
            }
        }

        impl Adapter for $name {
            type Mode = $runtime;

            fn new() -> Self {
                Self($new)
            }

            fn open(&self, watch: Watch<$runtime>) -> Result<ChangeStream<$runtime>, Error> {
                let opening: Opening<$runtime> = watch.open();
                self.block_on(opening)
            }

            fn run(&self, running: Running<$runtime>) -> Result<Document, Error> {
                self.block_on(running)
            }

            fn next(&self, stream: &mut ChangeStream<$runtime>) -> Option<Result<ChangeEvent, Error>> {
                self.block_on(stream.next())
            }

            fn try_next(&self, stream: &mut ChangeStream<$runtime>) -> Result<Option<ChangeEvent>, Error> {
                self.block_on(stream.try_next())
            }

            fn close(&self, stream: &mut ChangeStream<$runtime>) {
                // A stream that has ended with an error says so again.
                let _ended = self.block_on(stream.close());
            }
        }
    };
}

awaited!(
    OnTokio,
    changestream_tokio::Tokio,
    tokio::runtime::Runtime,
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap(),
    on_tokio
);
awaited!(OnSmol, changestream_smol::Smol, (), (), on_smol);
awaited!(OnAsyncStd, changestream_async_std::AsyncStd, (), (), on_async_std);

fn on_tokio<T>(executor: &tokio::runtime::Runtime, future: impl Future<Output = T>) -> T {
    executor.block_on(future)
}

fn on_smol<T>((): &(), future: impl Future<Output = T>) -> T {
    async_io::block_on(future)
}

fn on_async_std<T>((): &(), future: impl Future<Output = T>) -> T {
    async_std::task::block_on(future)
}

/// The adapter whose calls block.
pub(super) struct Blocking;

impl Adapter for Blocking {
    type Mode = changestream_blocking::Blocking;

    fn new() -> Self {
        Self
    }

    fn open(
        &self,
        watch: changestream_blocking::Watch,
    ) -> Result<changestream_blocking::ChangeStream, Error> {
        watch.open()
    }

    fn run(&self, running: <Self::Mode as Mode>::Running) -> Result<Document, Error> {
        running
    }

    fn next(&self, stream: &mut changestream_blocking::ChangeStream) -> Option<Result<ChangeEvent, Error>> {
        Iterator::next(stream)
    }

    fn try_next(
        &self,
        stream: &mut changestream_blocking::ChangeStream,
    ) -> Result<Option<ChangeEvent>, Error> {
        stream.try_next()
    }

    fn close(&self, stream: &mut changestream_blocking::ChangeStream) {
        // As above.
        let _ended = stream.close();
    }
}
