//! Postfix's socketmap protocol on a connection (socketmap_table(5)).

use super::Shutdown;
use super::listen::Serve;
use crate::answer::Answers;
use formats::limits::SOCKETMAP_TIME;
use formats::socketmap::{SocketmapError, request};
use net::BoxFuture;
use net::smtp::server::AnyStream;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

/// Answers look-ups.
#[derive(Clone)]
pub struct Socketmap(pub Arc<Answers>);

/// Room that is made for what comes in; a request of usual size fits.
const READ_BUFFER_BYTES: usize = 1024;
/// One round of answers in so many is measured.
const LATENCY_SAMPLE_INTERVAL: u32 = 64;
/// Replies are sent when they have grown to this.
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
            let mut connection =
                Connection { stream, input: Vec::new(), output: Vec::new(), answers: &self.0, rounds: 0 };
            if let Err(end) = connection.talk(&shutdown).await {
                tracing::debug!("a connection ends: {end}");
            }
            self.0.metrics.connections.dec();
        })
    }
}

struct Connection<'a> {
    stream: AnyStream,
    input: Vec<u8>,
    output: Vec<u8>,
    answers: &'a Arc<Answers>,
    rounds: u32,
}

#[derive(Debug, thiserror::Error)]
enum End {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("nothing more came in the middle of a request, or the reply is not taken")]
    Slow(#[from] tokio::time::error::Elapsed),
    #[error("{0}")]
    Framing(#[from] SocketmapError),
}

impl Connection<'_> {
    async fn talk(&mut self, shutdown: &Shutdown) -> Result<(), End> {
        loop {
            if !self.read(shutdown).await? {
                return Ok(());
            }
            self.answer().await?;
            self.send().await?;
            if self.input.is_empty() && self.input.capacity() > 16 * READ_BUFFER_BYTES {
                self.input = Vec::new();
            }
        }
    }

    /// Reads more; false at the end. Between requests there is no hurry.
    async fn read(&mut self, shutdown: &Shutdown) -> Result<bool, End> {
        self.input.reserve(READ_BUFFER_BYTES);
        let has_begun = !self.input.is_empty();
        let more = self.stream.read_buf(&mut self.input);
        let read = if has_begun {
            timeout(SOCKETMAP_TIME, more).await??
        } else {
            tokio::select! {
                biased;
                read = more => read?,
                () = shutdown.token.cancelled() => 0,
            }
        };
        Ok(read > 0)
    }

    /// Answers the requests that have come in whole.
    async fn answer(&mut self) -> Result<(), End> {
        let mut taken = 0;
        self.rounds = self.rounds.wrapping_add(1);
        let mut begun = self.rounds.is_multiple_of(LATENCY_SAMPLE_INTERVAL).then(std::time::Instant::now);
        while let Some((asked, length)) = request(self.input.get(taken..).unwrap_or_default())? {
            let tlsrpt = self.answers.reports(asked.map);
            match self.answers.hit(asked.key) {
                Some(entry) => entry.write_socketmap(tlsrpt, &mut self.output),
                None => {
                    let key = asked.key.to_owned();
                    begun = None;
                    if !self.output.is_empty() {
                        self.send().await?;
                    }
                    self.answers.ask(&key).await.write_socketmap(tlsrpt, &mut self.output);
                }
            }
            taken += length;
            if self.output.len() > WRITE_BUFFER_BYTES {
                self.send().await?;
            }
        }
        if let Some(begun) = begun.filter(|_| taken > 0) {
            self.answers.metrics.hit_seconds.observe(begun.elapsed().as_secs_f64());
        }
        self.input.drain(..taken);
        Ok(())
    }

    async fn send(&mut self) -> Result<(), End> {
        if !self.output.is_empty() {
            timeout(SOCKETMAP_TIME, self.stream.write_all(&self.output)).await??;
            self.output.clear();
            self.output.shrink_to(WRITE_BUFFER_BYTES);
        }
        Ok(())
    }
}
