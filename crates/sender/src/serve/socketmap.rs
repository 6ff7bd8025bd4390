//! Postfix's socketmap protocol (socketmap_table(5)).
//!
//! The client may pipeline requests; replies keep the order of the requests. The name of the map in a request selects
//! whether the reply has TLSRPT attributes, and which set of settings applies ([`crate::answer::maps`]).

use super::Shutdown;
use super::listen::Serve;
use crate::answer::PolicyService;
use crate::answer::maps::Maps;
use formats::limits::SOCKETMAP_TIME;
use formats::socketmap::{SocketmapError, request};
use net::BoxFuture;
use net::smtp::server::AnyStream;
use std::future::poll_fn;
use std::io;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::error::Elapsed;
use tokio::time::timeout;
use tokio_util::sync::WaitForCancellationFuture;

/// The service of the socketmap protocol.
#[derive(Clone)]
pub struct Socketmap(pub Arc<PolicyService>);

/// The bytes that are reserved for each read; a typical request fits.
const READ_BUFFER_BYTES: usize = 1024;
/// The latency is measured once per this number of reads.
const LATENCY_SAMPLE_INTERVAL: u32 = 64;
/// Replies are sent once the buffered ones exceed this number of bytes.
const WRITE_BUFFER_BYTES: usize = 32_768;

impl Serve for Socketmap {
    fn serve(
        self: Arc<Self>,
        stream: AnyStream,
        _: Option<IpAddr>,
        shutdown: Shutdown,
    ) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            self.0.metrics.connections.inc();
            let mut connection = Connection {
                stream,
                input: Vec::new(),
                output: Vec::new(),
                answers: &self.0,
                maps: None,
                rounds: 0,
            };
            if let Err(end) = connection.run(&shutdown).await {
                tracing::debug!("connection closed: {end}");
            }
            self.0.metrics.connections.dec();
        })
    }
}

struct Connection<'a> {
    stream: AnyStream,
    input: Vec<u8>,
    output: Vec<u8>,
    answers: &'a Arc<PolicyService>,
    /// The named sets of settings at the last read; `None` if there were none.
    maps: Option<Arc<Maps>>,
    /// The number of reads, to sample the latency.
    rounds: u32,
}

#[derive(Debug, thiserror::Error)]
enum End {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("the client timed out within a request or while reading the reply")]
    TimedOut(#[from] Elapsed),
    #[error("{0}")]
    Framing(#[from] SocketmapError),
}

impl Connection<'_> {
    async fn run(&mut self, shutdown: &Shutdown) -> Result<(), End> {
        // One future for all reads: each new one registers with the token, and deregisters when it is dropped.
        let mut shutdown_begins = pin!(shutdown.token.cancelled());
        loop {
            if !self.read(shutdown, shutdown_begins.as_mut()).await? {
                return Ok(());
            }
            self.answer().await?;
            self.send().await?;
            if self.input.is_empty() && self.input.capacity() > 16 * READ_BUFFER_BYTES {
                self.input = Vec::new();
            }
        }
    }

    /// Reads more input. Returns false at the end of the stream or at the shutdown. The time limit applies only within
    /// a request.
    async fn read(
        &mut self,
        shutdown: &Shutdown,
        shutdown_begins: Pin<&mut WaitForCancellationFuture<'_>>,
    ) -> Result<bool, End> {
        self.input.reserve(READ_BUFFER_BYTES);
        let is_within_request = !self.input.is_empty();
        let more = self.stream.read_buf(&mut self.input);
        if is_within_request {
            return Ok(in_time(more).await?? > 0);
        }
        tokio::select! {
            biased;
            read = more => return Ok(read? > 0),
            () = shutdown_begins => (),
        }
        // The read without a request before it is the connection's first.
        let first = self.stream.read_buf(&mut self.input);
        match shutdown.next_request(first, self.rounds == 0).await {
            Some(read) => Ok(read? > 0),
            None => Ok(false),
        }
    }

    /// Answers all complete requests in the input.
    async fn answer(&mut self) -> Result<(), End> {
        let mut consumed = 0;
        let maps = self.answers.named_maps(self.maps.take());
        self.rounds = self.rounds.wrapping_add(1);
        let mut started = self.rounds.is_multiple_of(LATENCY_SAMPLE_INTERVAL).then(std::time::Instant::now);
        while let Some((request, length)) = request(self.input.get(consumed..).unwrap_or_default())? {
            let set = maps.as_deref().and_then(|maps| maps.select(request.map));
            let (tlsrpt, hit) = match set {
                None => (self.answers.wants_tlsrpt(request.map), self.answers.hit(request.key)),
                Some(set) => (set.wants_tlsrpt, self.answers.hit_in(set.name, request.key)),
            };
            match hit {
                Some(entry) => entry.write_socketmap(tlsrpt, &mut self.output),
                None => {
                    let key = request.key.to_owned();
                    started = None;
                    if !self.output.is_empty() {
                        self.send().await?;
                    }
                    let entry = self.answers.ask_in(set.map(|set| set.name), &key).await;
                    entry.write_socketmap(tlsrpt, &mut self.output);
                }
            }
            consumed += length;
            if self.output.len() > WRITE_BUFFER_BYTES {
                self.send().await?;
            }
        }
        if let Some(started) = started.filter(|_| consumed > 0) {
            self.answers.metrics.hit_seconds.observe(started.elapsed().as_secs_f64());
        }
        self.input.drain(..consumed);
        self.maps = maps;
        Ok(())
    }

    async fn send(&mut self) -> Result<(), End> {
        if !self.output.is_empty() {
            in_time(self.stream.write_all(&self.output)).await??;
            self.output.clear();
            self.output.shrink_to(WRITE_BUFFER_BYTES);
        }
        Ok(())
    }
}

/// Waits for `action` for up to [`SOCKETMAP_TIME`]. Most actions complete at once, and need no timer.
async fn in_time<F: Future>(action: F) -> Result<F::Output, Elapsed> {
    let mut action = pin!(action);
    if let Poll::Ready(output) = poll_fn(|context| Poll::Ready(action.as_mut().poll(context))).await {
        return Ok(output);
    }
    timeout(SOCKETMAP_TIME, action).await
}
