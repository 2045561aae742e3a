//! Stores what a file holds. Commands on one key keep their order, others are stored many at a time, so that the cluster and not the way to
//! it bounds the speed. Holds `LANES` batches and a few pieces of the file, unless a single value is larger. Tested below and in
//! `tests/cli.rs`.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use bytes::{Buf, Bytes, BytesMut};
use futures_util::future::LocalBoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::mpsc;

use trellis::base::limits::VALUE_BYTES_MAX;
use trellis::base::slot::Slot;
use trellis::client::{Error, Value};
use trellis::protocol::dump;
use trellis::protocol::resp::command::lookup;
use trellis::protocol::resp::decode::Decoder;

use super::arguments::FileFormat;
use super::ask::{Cluster, line};
use super::progress::Progress;
use super::{Failure, lines};

/// Bytes of the file read at once.
const PIECE_BYTES: usize = 256 * 1024;
/// Pieces read ahead.
const PIECES_AHEAD: usize = 4;
/// Keys are parted by their slots into so many lanes, each of which has one batch under way.
const LANES: usize = 8;
/// Commands of a batch.
const BATCH_OPS: usize = 2000;
/// Bytes of a batch, unless a single command is larger.
const BATCH_BYTES: usize = 1024 * 1024;
/// Commands decoded at once.
const DECODED_MAX: usize = 1000;
/// Longest line: the largest key and value in base64.
const LINE_BYTES_MAX: usize = VALUE_BYTES_MAX / 3 * 4 + 1024 * 1024;
/// Failures that are told; further ones are only counted.
const FAILURES_TOLD_MAX: u64 = 20;

/// What was found in a file, and on which line, or as the how manieth command, counted from 1.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    number: u64,
    command: Result<Vec<Bytes>, String>,
}

/// Finds commands in the pieces of a file.
enum Source {
    Json { buf: BytesMut, searched: usize, lines: u64 },
    Resp { decoder: Box<Decoder>, buf: BytesMut, commands: u64 },
}

impl Source {
    fn new(format: FileFormat) -> Self {
        let buf = BytesMut::new();
        match format {
            FileFormat::Json => Self::Json { buf, searched: 0, lines: 0 },
            FileFormat::Resp => Self::Resp { decoder: Box::new(Decoder::new(VALUE_BYTES_MAX)), buf, commands: 0 },
        }
    }

    /// What a number counts.
    fn unit(&self) -> &'static str {
        match self {
            Self::Json { .. } => "line",
            Self::Resp { .. } => "command",
        }
    }

    /// Takes the next piece.
    ///
    /// # Errors
    /// Why nothing can be read any more, in words. What was found before is in `found`.
    fn take(&mut self, mut piece: &[u8], found: &mut Vec<Found>) -> Result<(), String> {
        match self {
            Self::Json { buf, searched, lines } => {
                buf.extend_from_slice(piece);
                while let Some(end) = memchr::memchr(b'\n', &buf[*searched..]) {
                    let line = buf.split_to(*searched + end);
                    buf.advance(1);
                    *searched = 0;
                    *lines += 1;
                    found.extend(of_line(&line, *lines));
                }
                *searched = buf.len();
                match buf.len() > LINE_BYTES_MAX {
                    true => Err(format!("line {} is longer than any may be", *lines + 1)),
                    false => Ok(()),
                }
            }
            Self::Resp { decoder, buf, commands } => {
                let mut decoded = Vec::new();
                while !piece.is_empty() {
                    buf.reserve(PIECE_BYTES);
                    let target = decoder.read_target(buf);
                    let taken = piece.len().min(target.capacity() - target.len());
                    target.extend_from_slice(&piece[..taken]);
                    piece = &piece[taken..];
                    loop {
                        let result = decoder.decode(buf, DECODED_MAX, &mut decoded);
                        let count = decoded.len();
                        for args in decoded.drain(..) {
                            *commands += 1;
                            found.push(Found { number: *commands, command: Ok(args.into_vec()) });
                        }
                        result.map_err(|error| format!("after command {}: {error}", *commands))?;
                        if count < DECODED_MAX {
                            break;
                        }
                    }
                }
                Ok(())
            }
        }
    }

    /// The file has ended.
    ///
    /// # Errors
    /// That it ended in the middle of something.
    fn end(&mut self, found: &mut Vec<Found>) -> Result<(), String> {
        match self {
            Self::Json { buf, lines, .. } => {
                found.extend(of_line(buf, *lines + 1));
                Ok(())
            }
            Self::Resp { decoder, buf, commands } if !decoder.is_idle(buf) => {
                Err(format!("after command {commands}: the file ends in the middle of a command"))
            }
            Self::Resp { .. } => Ok(()),
        }
    }
}

/// What a line of JSON holds; nothing if it is blank.
fn of_line(line: &[u8], number: u64) -> Option<Found> {
    let line = line.trim_ascii();
    (!line.is_empty()).then(|| Found { number, command: lines::read(line).map(command) })
}

/// The command that stores an entry.
fn command(lines::Entry { key, value, ttl, flags }: lines::Entry) -> Vec<Bytes> {
    let ttl_ms = ttl.map(|ttl| Bytes::from(ttl.as_millis().to_string()));
    if flags == 0 {
        let set = [Bytes::from_static(b"SET"), key, value].into_iter();
        return set.chain(ttl_ms.into_iter().flat_map(|ms| [Bytes::from_static(b"PX"), ms])).collect();
    }
    // The one command that takes flags; 0 is no deadline.
    let ttl_ms = ttl_ms.unwrap_or(Bytes::from_static(b"0"));
    vec![Bytes::from_static(b"RESTORE"), key, ttl_ms, dump::pack(&value, flags), Bytes::from_static(b"REPLACE")]
}

/// The lane of a command on one key; `None` for those that must wait for all before them.
fn lane(command: &[Bytes]) -> Option<usize> {
    let mut keys = lookup(command.first()?)?.key_indices(command.len());
    let key = command.get(keys.next()?)?;
    keys.next().is_none().then(|| usize::from(Slot::of(key).0) % LANES)
}

#[derive(Default)]
struct Lane {
    commands: Vec<Vec<Bytes>>,
    numbers: Vec<u64>,
    bytes: usize,
    is_under_way: bool,
}

/// Results of a batch: of which lane, the number of each command.
type Batch = (Option<usize>, Vec<u64>, Vec<Result<Value, Error>>);

/// An import under way.
struct Import<'a> {
    cluster: &'a Cluster,
    lanes: [Lane; LANES],
    under_way: FuturesUnordered<LocalBoxFuture<'a, Batch>>,
    progress: Progress,
    unit: &'static str,
}

impl Import<'_> {
    /// Takes what was found.
    ///
    /// # Errors
    /// That the cluster can't be reached.
    async fn take(&mut self, Found { number, command }: Found) -> Result<(), Failure> {
        let command = match command {
            Ok(command) => command,
            Err(why) => {
                self.fail(number, &why);
                return Ok(());
            }
        };
        let Some(n) = lane(&command) else {
            self.settle_all().await?;
            let results = self.cluster.client.pipeline(vec![command], self.cluster.level).await;
            return self.note((None, vec![number], results));
        };
        let lane = &mut self.lanes[n];
        lane.bytes += command.iter().map(Bytes::len).sum::<usize>();
        lane.commands.push(command);
        lane.numbers.push(number);
        if lane.commands.len() >= BATCH_OPS || lane.bytes >= BATCH_BYTES { self.send(n).await } else { Ok(()) }
    }

    /// Sends a lane's batch, once the one before it is done.
    async fn send(&mut self, n: usize) -> Result<(), Failure> {
        while self.lanes[n].is_under_way {
            self.settle_one().await?;
        }
        let Lane { commands, numbers, .. } = std::mem::take(&mut self.lanes[n]);
        if !commands.is_empty() {
            self.lanes[n].is_under_way = true;
            let (client, level) = (self.cluster.client.clone(), self.cluster.level);
            let batch = async move { (Some(n), numbers, client.pipeline(commands, level).await) };
            self.under_way.push(Box::pin(batch));
        }
        Ok(())
    }

    async fn settle_one(&mut self) -> Result<(), Failure> {
        match self.under_way.next().await {
            Some(batch) => self.note(batch),
            None => Ok(()),
        }
    }

    async fn settle_all(&mut self) -> Result<(), Failure> {
        for n in 0..LANES {
            self.send(n).await?;
        }
        while !self.under_way.is_empty() {
            self.settle_one().await?;
        }
        Ok(())
    }

    fn note(&mut self, (lane, numbers, results): Batch) -> Result<(), Failure> {
        if let Some(n) = lane {
            self.lanes[n].is_under_way = false;
        }
        let mut lost = None;
        for (number, result) in numbers.into_iter().zip(results) {
            match result {
                Ok(_) => self.progress.done += 1,
                Err(error) => {
                    self.fail(number, &error.to_string());
                    let failure = self.cluster.failure(&error);
                    lost = lost.or(matches!(failure, Failure::Unreachable(_)).then_some(failure));
                }
            }
        }
        self.progress.show();
        lost.map_or(Ok(()), Err)
    }

    fn fail(&mut self, number: u64, why: &str) {
        self.progress.failed += 1;
        if self.progress.failed <= FAILURES_TOLD_MAX {
            self.progress.say(&format!("{} {number}: {why}", self.unit));
        } else if self.progress.failed == FAILURES_TOLD_MAX + 1 {
            self.progress.say("further failures are only counted");
        }
    }
}

/// Imports a file, or standard input if that is `-`.
pub(crate) async fn run(cluster: &Cluster, file: &Path, format: Option<FileFormat>) -> Result<(), Failure> {
    let (mut pieces, total) = read(file)?;
    let mut next = pieces.recv().await;
    let is_json = matches!(&next, Some(Ok(piece)) if piece.trim_ascii_start().first() == Some(&b'{'));
    let guessed = if is_json { FileFormat::Json } else { FileFormat::Resp };
    let mut source = Source::new(format.unwrap_or(guessed));
    let mut import = Import {
        cluster,
        lanes: Default::default(),
        under_way: FuturesUnordered::new(),
        progress: Progress::of("imported", total, true),
        unit: source.unit(),
    };
    let (mut found, mut lost) = (Vec::new(), Ok(()));
    let broken = loop {
        let piece = match next {
            Some(Ok(piece)) => Some(piece),
            Some(Err(error)) => break Some(format!("reading {}: {error}", file.display())),
            None => None,
        };
        let taken = match &piece {
            Some(piece) => source.take(piece, &mut found),
            None => source.end(&mut found),
        };
        for found in found.drain(..) {
            if lost.is_ok() {
                lost = import.take(found).await;
            }
        }
        import.progress.step(piece.as_ref().map_or(0, Vec::len) as u64);
        if taken.is_err() || lost.is_err() || piece.is_none() {
            break taken.err();
        }
        next = pieces.recv().await;
    };
    if lost.is_ok() {
        lost = import.settle_all().await;
    }
    conclude(cluster, import.progress, broken, lost)
}

fn conclude(
    cluster: &Cluster,
    progress: Progress,
    broken: Option<String>,
    lost: Result<(), Failure>,
) -> Result<(), Failure> {
    let has_failed = progress.failed > 0;
    let (told, json) = progress.finish();
    if cluster.json {
        line(&json.to_string())?;
    } else {
        writeln!(io::stderr(), "{told}")?;
    }
    lost?;
    match broken {
        Some(why) => Err(Failure::Told(format!("stopped {why}"))),
        None if has_failed => Err(Failure::Shown),
        None => Ok(()),
    }
}

/// Pieces of a file, read ahead on a thread of its own, and how many bytes it has, if that is known.
type Pieces = mpsc::Receiver<io::Result<Vec<u8>>>;

fn read(file: &Path) -> Result<(Pieces, Option<u64>), Failure> {
    let (mut input, total): (Box<dyn Read + Send>, _) = if file.as_os_str() == "-" {
        (Box::new(io::stdin()), None)
    } else {
        let unreadable = |error: io::Error| Failure::Usage(format!("{}: {error}", file.display()));
        let open = File::open(file).map_err(unreadable)?;
        let about = open.metadata().map_err(unreadable)?;
        let total = about.is_file().then_some(about.len());
        (Box::new(open), total)
    };
    let (to, pieces) = mpsc::channel(PIECES_AHEAD);
    std::thread::spawn(move || {
        loop {
            let mut piece = vec![0; PIECE_BYTES];
            let read = match input.read(&mut piece) {
                Ok(0) => return,
                Ok(bytes) => {
                    piece.truncate(bytes);
                    Ok(piece)
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => Err(error),
            };
            // Nobody may want more.
            let is_last = read.is_err();
            if to.blocking_send(read).is_err() || is_last {
                return;
            }
        }
    });
    Ok((pieces, total))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What is found in `file`, cut into pieces of so many bytes, and how it ends.
    fn found(format: FileFormat, file: &[u8], piece: usize) -> (Vec<Found>, Result<(), String>) {
        let (mut source, mut found) = (Source::new(format), Vec::new());
        for piece in file.chunks(piece) {
            if let Err(why) = source.take(piece, &mut found) {
                return (found, Err(why));
            }
        }
        let end = source.end(&mut found);
        (found, end)
    }

    #[test]
    fn lines_are_counted_whatever_they_hold() {
        let file = b"{\"key\":\"a\",\"value\":\"1\"}\n\nnonsense\r\n{\"key\":\"b\",\"value\":\"2\",\"ttl_ms\":5}";
        for piece in [1, 7, 1000] {
            let (found, end) = found(FileFormat::Json, file, piece);
            assert_eq!((found.len(), end), (3, Ok(())));
            assert_eq!(found[0], Found { number: 1, command: Ok(vec!["SET".into(), "a".into(), "1".into()]) });
            assert!(found[1].number == 3 && found[1].command.is_err());
            let with_ttl = ["SET", "b", "2", "PX", "5"].map(Bytes::from).to_vec();
            assert_eq!(found[2], Found { number: 4, command: Ok(with_ttl) });
        }
    }

    #[test]
    fn what_has_flags_is_restored_and_the_rest_is_set() {
        let of = |ttl_ms: Option<u64>, flags| {
            let ttl = ttl_ms.map(std::time::Duration::from_millis);
            command(lines::Entry { key: "k".into(), value: "v".into(), ttl, flags })
        };
        let words = |line: &str| line.split(' ').map(|word| word.to_owned().into()).collect::<Vec<Bytes>>();
        assert_eq!(of(None, 0), words("SET k v"));
        assert_eq!(of(Some(5), 0), words("SET k v PX 5"));
        for (ttl_ms, told) in [(None, "0"), (Some(5), "5")] {
            let [restore, key, ttl, payload, replace] = &of(ttl_ms, 7)[..] else { panic!("another command") };
            assert_eq!([restore, key, ttl, replace], ["RESTORE", "k", told, "REPLACE"]);
            assert_eq!(dump::unpack(payload), Some(("v".into(), 7)));
            assert_eq!(lane(&of(ttl_ms, 7)), lane(&of(ttl_ms, 0)));
        }
    }

    #[test]
    fn commands_after_a_break_are_lost_and_those_before_it_are_not() {
        let file = b"*2\r\n$3\r\nDEL\r\n$1\r\na\r\nSET b 1\r\n*1\r\n+OK\r\n*2\r\n$3\r\nDEL\r\n$1\r\nc\r\n";
        for piece in [1, 5, 1000] {
            let (found, end) = found(FileFormat::Resp, file, piece);
            assert_eq!(found.iter().map(|found| found.number).collect::<Vec<_>>(), [1, 2], "{piece}");
            assert!(end.unwrap_err().starts_with("after command 2: expected '$'"));
        }
        let (found, end) = found(FileFormat::Resp, b"*2\r\n$3\r\nDEL\r\n$1\r", 4);
        assert!(found.is_empty() && end.unwrap_err().contains("in the middle"));
    }

    #[test]
    fn only_commands_on_one_key_have_a_lane() {
        let of = |line: &str| lane(&line.split(' ').map(|word| word.to_owned().into()).collect::<Vec<Bytes>>());
        assert_eq!(of("SET a 1"), of("incr a"));
        assert!(of("SET a 1").is_some());
        assert_eq!([of("MSET a 1 b 2"), of("FLUSHALL"), of("NOSUCH a"), of("SET")], [None; 4]);
    }

    proptest! {
        #[test]
        fn commands_come_out_as_they_went_in(
            commands in prop::collection::vec(prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 1..4), 0..20),
            large in prop::option::of(40_000usize..90_000),
            piece in 1usize..5000,
        ) {
            let mut commands = commands;
            commands.extend(large.map(|bytes| vec![b"SET".to_vec(), vec![b'v'; bytes]]));
            let mut file = Vec::new();
            for command in &commands {
                let args = command.iter().map(|arg| Value::Bulk(arg.clone().into())).collect();
                Value::Array(args).encode(trellis::base::reply::Wire::Resp2, &mut file);
            }
            let (found, end) = found(FileFormat::Resp, &file, piece);
            prop_assert_eq!(end, Ok(()));
            let found: Vec<Vec<Bytes>> = found.into_iter().map(|found| found.command.unwrap()).collect();
            prop_assert_eq!(found, commands.into_iter().map(|c| c.into_iter().map(Bytes::from).collect()).collect::<Vec<Vec<_>>>());
        }
    }
}
