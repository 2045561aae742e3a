//! The client against a node whose answers are scripted: in which order operations reach it, and what is refused before it is asked. Never
//! talks to a real node; `tests/client.rs` does.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::base::limits::FRAME_BYTES_MAX;
use crate::base::op::OpRef;
use crate::base::reply::{BUSY, LATE, ReplyKind};
use crate::base::slot::PARTITIONS;
use crate::net::{Listener, Net, Stream};
use crate::protocol::native::{Forward, Message, PREFACE, Replies, Routes, Welcome, frame};

use super::*;

/// What a node is asked and answers.
type Script = dyn FnMut(&Forward<'_>) -> Vec<String> + Send;

/// A node that serves every key and answers operations as the script has it; whatever else it is asked, it was there.
async fn node(script: Box<Script>) -> String {
    let listener = Net::Os.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listener.address().unwrap().unwrap().to_string();
    let (at, script) = (address.clone(), Arc::new(Mutex::new(script)));
    tokio::spawn(async move {
        while let Ok(stream) = Listener::accept(&listener).await {
            tokio::spawn(serve(stream, at.clone(), script.clone()));
        }
    });
    address
}

async fn serve(mut stream: Stream, address: String, script: Arc<Mutex<Box<Script>>>) {
    let mut buf = BytesMut::new();
    loop {
        if buf.starts_with(&PREFACE) {
            let _ = buf.split_to(PREFACE.len());
        }
        while let Some(payload) = frame::cut(&mut buf, FRAME_BYTES_MAX).unwrap() {
            let answer = match frame::decode(&payload).unwrap() {
                Message::Hello(_) => {
                    frame::to_bytes(&Message::Welcome(Welcome { node: "a", incarnation: 1, now_ms: 70_000 }))
                }
                Message::Ask { id, ask: Ask::Routes(_) } => {
                    let answer = Answer::Routes(Routes {
                        mark: 1,
                        epoch: 1,
                        level: Level::One,
                        value_bytes_max: 1024,
                        members: vec![&address],
                        serving: vec![vec![0]; usize::from(PARTITIONS)],
                    });
                    frame::to_bytes(&Message::Answer { id, answer })
                }
                Message::Forward { id, forward, .. } => answered(id, &(script.lock().unwrap())(&forward)),
                Message::Ask { id, .. } => frame::to_bytes(&Message::Answer { id, answer: Answer::Pong }),
                other => panic!("{other:?}"),
            };
            stream.write_all(&answer).await.unwrap();
        }
        if !matches!(stream.read_buf(&mut buf).await, Ok(1..)) {
            return;
        }
    }
}

fn answered(id: u64, replies: &[String]) -> Bytes {
    let (mut marks, mut bytes) = (Vec::new(), Vec::new());
    for reply in replies {
        bytes.extend_from_slice(reply.as_bytes());
        marks.push((bytes.len() as u32, ReplyKind::Value));
    }
    frame::to_bytes(&Message::Forwarded { id, result: Ok(Replies { marks, bytes: &bytes }) })
}

fn words(line: &str) -> Vec<Bytes> {
    line.split(' ').map(|word| Bytes::copy_from_slice(word.as_bytes())).collect()
}

#[tokio::test]
async fn nothing_overtakes_operations_that_are_to_be_tried_again() {
    for refusal in [BUSY, LATE] {
        let kept: Arc<Mutex<HashMap<Vec<u8>, Vec<u8>>>> = Arc::default();
        let (store, mut is_first) = (kept.clone(), true);
        let address = node(Box::new(move |forward| {
            let refuses = std::mem::take(&mut is_first);
            let mut store = store.lock().unwrap();
            let one = |(_, OpRef { key, value, .. }): &(u64, OpRef<'_>)| {
                if refuses && *key == b"k" {
                    return format!("-{refusal}\r\n");
                }
                store.insert(key.to_vec(), value.to_vec());
                "+OK\r\n".to_owned()
            };
            forward.ops.iter().map(one).collect()
        }))
        .await;
        let client = Client::connect([&address]).await.unwrap();
        let others = (0..1100).map(|n| words(&format!("SET other:{n} x")));
        let commands = [words("SET k 1")].into_iter().chain(others).chain([words("SET k 2")]).collect();
        let results = client.pipeline(commands, None).await;
        assert!(results.iter().all(|result| *result == Ok(Value::OK)), "{refusal}");
        assert_eq!(kept.lock().unwrap()[&b"k"[..]], b"2", "{refusal}");
    }
}

#[tokio::test]
async fn a_command_that_no_node_would_take_is_refused_alone() {
    let ok = |forward: &Forward<'_>| vec!["+OK\r\n".to_owned(); forward.ops.len()];
    let client = Client::connect([&node(Box::new(ok)).await]).await.unwrap();
    let long = "x".repeat(1025);
    let lines =
        ["SET a 1".to_owned(), format!("SET b {long}"), format!("GET {}", "k".repeat(70_000)), "SET c 1".into()];
    let results = client.pipeline(lines.iter().map(|line| words(line)).collect(), None).await;
    let told = |result: &Result<Value>| result.as_ref().map_or_else(|error| error.applied() == Applied::No, |_| false);
    assert_eq!(results.iter().map(told).collect::<Vec<_>>(), [false, true, true, false], "{results:?}");
    // What is stored together is refused together.
    let refused = client.set_many([("a", "1".to_owned()), ("b", long)]).await.unwrap_err();
    assert_eq!((refused.kind(), refused.applied()), (ErrorKind::Command, Applied::No));
}

#[tokio::test]
async fn a_command_that_fills_no_frame_costs_nobody_the_connection() {
    let client = Client::connect([&node(Box::new(|_| panic!("no operation is asked for"))).await]).await.unwrap();
    let large = Bytes::from(vec![0; FRAME_BYTES_MAX / 2]);
    let command = vec!["MSET".into(), "a".into(), large.clone(), "b".into(), large];
    let results = client.pipeline(vec![command], None).await;
    let error = results[0].as_ref().unwrap_err();
    assert_eq!((error.kind(), error.applied()), (ErrorKind::Command, Applied::No), "{error}");
}
