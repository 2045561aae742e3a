//! A client of the native protocol: greets a node, asks it one question at a time, hands out the answers. For exchanges with nodes that the
//! ring does not know yet. Never retries and never multiplexes; links between peers do that. Tested below.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::base::hlc::UnixMs;
use crate::base::limits::{FRAME_BYTES_MAX, READ_CHUNK_BYTES};
use crate::protocol::native::frame::{self, FrameError};
use crate::protocol::native::{Answer, Ask, Hello, Message, PREFACE};

use super::{Net, Stream};

/// Why there is no answer. The connection is of no more use after any of these but `Failed`.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No connection came about; nothing was asked.
    #[error("cannot connect: {0}")]
    Unreachable(#[source] io::Error),
    /// The connection broke. What was asked may have been done.
    #[error("connection lost: {0}")]
    Lost(#[source] io::Error),
    /// The node does not talk to us: another cluster name or protocol version. Nothing was done.
    #[error("refused: {0}")]
    Refused(String),
    /// What answers there breaks the protocol. What was asked may have been done.
    #[error("not the native protocol: {0}")]
    Protocol(String),
    /// It answers in HTTP. Nothing was done.
    #[error("it speaks HTTP: this looks like the admin port, not the main port")]
    Http,
    /// No answer in time. What was asked may have been done.
    #[error("no answer in time")]
    Timeout,
    /// The node answered with this error line, which says what was done. The connection goes on.
    #[error("{0}")]
    Failed(String),
}

impl From<FrameError> for ClientError {
    fn from(error: FrameError) -> Self {
        Self::Protocol(error.to_string())
    }
}

/// A connection to one node.
#[derive(Debug)]
pub struct Client {
    stream: Stream,
    buf: BytesMut,
    frame_bytes_max: usize,
    /// Who welcomed us.
    node: Option<String>,
    /// Its clock, then.
    welcomed_ms: UnixMs,
    asked: u64,
}

impl Client {
    /// Connects to `address`, and greets a node of `cluster` without waiting for its welcome. `timeout` is for connecting.
    ///
    /// # Errors
    /// [`ClientError::Unreachable`].
    pub async fn connect(net: Net, address: SocketAddr, cluster: &str, timeout: Duration) -> Result<Self, ClientError> {
        let mut stream = net.connect(address, timeout).await.map_err(ClientError::Unreachable)?;
        let mut greeting = PREFACE.to_vec();
        frame::encode(&Message::Hello(Hello { cluster, peer: None }), &mut greeting);
        stream.write_all(&greeting).await.map_err(ClientError::Unreachable)?;
        let buf = BytesMut::with_capacity(READ_CHUNK_BYTES);
        Ok(Self { stream, buf, frame_bytes_max: FRAME_BYTES_MAX, node: None, welcomed_ms: 0, asked: 0 })
    }

    /// Takes no frame longer than `bytes`.
    #[must_use]
    pub fn taking_at_most(self, bytes: usize) -> Self {
        Self { frame_bytes_max: bytes, ..self }
    }

    /// Waits at most `timeout` for the node's welcome, and says which node it is. [`ask`](Self::ask) does it too; this is for those who want
    /// to know sooner.
    ///
    /// # Errors
    /// Any but `Failed`. Nothing was asked.
    pub async fn await_welcome(&mut self, timeout: Duration) -> Result<&str, ClientError> {
        within(timeout, self.welcome()).await?;
        Ok(self.node.as_deref().unwrap_or_default())
    }

    /// Waits at most `timeout` for the node's welcome, and says what its clock showed then.
    ///
    /// # Errors
    /// Any but `Failed`. Nothing was asked.
    pub async fn await_time(&mut self, timeout: Duration) -> Result<UnixMs, ClientError> {
        within(timeout, self.welcome()).await?;
        Ok(self.welcomed_ms)
    }

    /// Asks, and gives the answer to `read`, which takes what it wants of it, or nothing if that is no answer to such a question.
    ///
    /// # Errors
    /// Any but `Unreachable`; each says whether it may have been done.
    pub async fn ask<T>(
        &mut self,
        ask: Ask<'_>,
        timeout: Duration,
        read: impl FnOnce(Answer<'_>) -> Option<T>,
    ) -> Result<T, ClientError> {
        let payload = within(timeout, self.exchange(ask)).await?;
        match frame::decode(&payload)? {
            Message::Answer { id, answer } if id == self.asked => match answer {
                Answer::Failed(line) => Err(ClientError::Failed(line.to_owned())),
                answer => read(answer).ok_or_else(|| ClientError::Protocol("an answer to another question".into())),
            },
            _ => Err(ClientError::Protocol("an unexpected frame".into())),
        }
    }

    async fn exchange(&mut self, ask: Ask<'_>) -> Result<Bytes, ClientError> {
        self.asked += 1;
        let question = frame::to_bytes(&Message::Ask { id: self.asked, ask });
        let sent = self.stream.write_all(&question).await;
        // Who refuses hangs up, so that the question may not go through; but its reason can still be read.
        self.welcome().await?;
        sent.map_err(ClientError::Lost)?;
        self.frame().await
    }

    async fn welcome(&mut self) -> Result<(), ClientError> {
        if self.node.is_none() {
            let payload = self.frame().await?;
            match frame::decode(&payload)? {
                Message::Welcome(welcome) => {
                    self.node = Some(welcome.node.to_owned());
                    self.welcomed_ms = welcome.now_ms;
                }
                Message::Refused { reason } => return Err(ClientError::Refused(reason.to_owned())),
                _ => return Err(ClientError::Protocol("no welcome".into())),
            }
        }
        Ok(())
    }

    async fn frame(&mut self) -> Result<Bytes, ClientError> {
        loop {
            if self.node.is_none() && self.buf.starts_with(b"HTTP") {
                return Err(ClientError::Http);
            }
            if let Some(payload) = frame::cut(&mut self.buf, self.frame_bytes_max)? {
                return Ok(payload);
            }
            self.buf.reserve(READ_CHUNK_BYTES);
            if self.stream.read_buf(&mut self.buf).await.map_err(ClientError::Lost)? == 0 {
                return Err(ClientError::Lost(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }
}

async fn within<T>(timeout: Duration, what: impl Future<Output = Result<T, ClientError>>) -> Result<T, ClientError> {
    tokio::time::timeout(timeout, what).await.unwrap_or(Err(ClientError::Timeout))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Listener;
    use crate::protocol::native::Welcome;

    const SOON: Duration = Duration::from_secs(5);

    /// A node that says `script` to the first who connects, and then does not hang up until that one does.
    async fn node(script: Vec<Message<'static>>) -> (SocketAddr, impl Future<Output = Vec<u8>>) {
        let listener = Net::Os.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.address().unwrap().unwrap();
        let serve = async move {
            let mut stream = Listener::accept(&listener).await.unwrap();
            for message in &script {
                stream.write_all(&frame::to_bytes(message)).await.unwrap();
            }
            let mut heard = Vec::new();
            let _ = stream.read_to_end(&mut heard).await;
            heard
        };
        (address, serve)
    }

    async fn ping_against(script: Vec<Message<'static>>) -> Result<(), ClientError> {
        let (address, serve) = node(script).await;
        let ping = async {
            let mut client = Client::connect(Net::Os, address, "trellis", SOON).await?.taking_at_most(64);
            client.ask(Ask::Ping, SOON, |answer| (answer == Answer::Pong).then_some(())).await
        };
        tokio::join!(ping, serve).0
    }

    const WELCOME: Message<'static> = Message::Welcome(Welcome { node: "a", incarnation: 1, now_ms: 1 });

    fn answer(id: u64, answer: Answer<'static>) -> Message<'static> {
        Message::Answer { id, answer }
    }

    #[tokio::test]
    async fn a_question_is_greeted_asked_and_answered() {
        let (address, serve) = node(vec![WELCOME, answer(1, Answer::Pong), answer(2, Answer::Count(7))]).await;
        let asked = async {
            let mut client = Client::connect(Net::Os, address, "trellis", SOON).await.unwrap();
            assert_eq!(client.await_welcome(SOON).await.unwrap(), "a");
            client.ask(Ask::Ping, SOON, |_| Some(())).await.unwrap();
            let count = |answer: Answer<'_>| if let Answer::Count(n) = answer { Some(n) } else { None };
            client.ask(Ask::Count(&[]), SOON, count).await.unwrap()
        };
        let (count, heard) = tokio::join!(asked, serve);
        assert_eq!(count, 7);
        let mut expected = PREFACE.to_vec();
        frame::encode(&Message::Hello(Hello { cluster: "trellis", peer: None }), &mut expected);
        frame::encode(&Message::Ask { id: 1, ask: Ask::Ping }, &mut expected);
        frame::encode(&Message::Ask { id: 2, ask: Ask::Count(&[]) }, &mut expected);
        assert_eq!(heard, expected);
    }

    #[tokio::test]
    async fn each_way_to_fail_has_its_error() {
        let refused = ping_against(vec![Message::Refused { reason: "another cluster name" }]).await;
        assert!(matches!(refused, Err(ClientError::Refused(reason)) if reason == "another cluster name"));
        let failed = ping_against(vec![WELCOME, answer(1, Answer::Failed("SHUTDOWN bye"))]).await;
        assert!(matches!(failed, Err(ClientError::Failed(line)) if line == "SHUTDOWN bye"));
        for script in [
            vec![answer(1, Answer::Pong)],
            vec![WELCOME, answer(2, Answer::Pong)],
            vec![WELCOME, answer(1, Answer::Done)],
            vec![WELCOME, answer(1, Answer::Reply(&[0; 65]))],
        ] {
            let told = ping_against(script.clone()).await;
            assert!(matches!(told, Err(ClientError::Protocol(_))), "{script:?}: {told:?}");
        }
    }

    #[tokio::test]
    async fn an_answer_in_http_is_known_for_what_it_is() {
        let listener = Net::Os.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.address().unwrap().unwrap();
        let serve = async {
            let mut stream = Listener::accept(&listener).await.unwrap();
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
            let _ = stream.read_to_end(&mut Vec::new()).await;
        };
        let asked = async {
            let mut client = Client::connect(Net::Os, address, "trellis", SOON).await.unwrap();
            client.await_welcome(SOON).await.map(str::to_owned)
        };
        assert!(matches!(tokio::join!(asked, serve).0, Err(ClientError::Http)));
    }

    #[tokio::test]
    async fn silence_and_absence_are_told_apart() {
        let (address, serve) = node(vec![]).await;
        let silent = async {
            let mut client = Client::connect(Net::Os, address, "trellis", SOON).await.unwrap();
            client.await_welcome(Duration::from_millis(20)).await.map(str::to_owned)
        };
        assert!(matches!(tokio::join!(silent, serve).0, Err(ClientError::Timeout)));
        // Its listener is gone with the node.
        let absent = Client::connect(Net::Os, address, "trellis", SOON).await;
        assert!(matches!(absent, Err(ClientError::Unreachable(_))));
    }
}
