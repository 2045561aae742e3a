//! Writes all keys with their values and deadlines: a scan of the cluster, page by page, each page's values by the node that has them. Never
//! holds more than a few pages of keys and `VALUES_BYTES` of values, unless a single value is larger. Tested in `tests/cli.rs`.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};

use trellis::base::reply::Wire;
use trellis::client::{Error, Item, Value};

use super::arguments::FileFormat;
use super::ask::{Cluster, line};
use super::progress::Progress;
use super::{Failure, lines};

/// Keys whose values are asked for together.
const PAGE_KEYS: usize = 1000;
/// Pages asked for at a time.
const PAGES_AT_ONCE: usize = 4;
/// Bytes of values asked for at once in a page.
const VALUES_BYTES: usize = 8 * 1024 * 1024;

/// Exports to a file, or to standard output if that is `-`.
pub(crate) async fn run(cluster: &Cluster, file: &Path, format: FileFormat, pattern: &[u8]) -> Result<(), Failure> {
    let is_standard = file.as_os_str() == "-";
    let mut out: BufWriter<Box<dyn Write>> = BufWriter::new(if is_standard {
        Box::new(io::stdout().lock())
    } else {
        let open = File::create(file);
        Box::new(open.map_err(|error| Failure::Usage(format!("{}: {error}", file.display())))?)
    });
    let total = match cluster.client.command(["DBSIZE"]).await {
        Ok(Value::Int(keys)) if pattern == b"*" => u64::try_from(keys).ok(),
        _ => None,
    };
    let mut progress = Progress::of("exported", total, false);
    let keys = cluster.client.scan(pattern).try_chunks(PAGE_KEYS).map_err(|error| error.1);
    let mut pages = std::pin::pin!(keys.map_ok(|keys| page(cluster, keys)).try_buffered(PAGES_AT_ONCE));
    let mut written = Ok(());
    while let Some(page) = pages.next().await {
        match page {
            Ok(page) => {
                written = page.iter().try_for_each(|(key, item)| write(&mut out, format, key, item));
                progress.done += page.len() as u64;
                progress.step(page.len() as u64);
                progress.show();
                if written.is_err() {
                    break;
                }
            }
            Err(error) => {
                let (told, _) = progress.finish();
                out.flush()?;
                eprintln!("{told}, broken off");
                return Err(cluster.failure(&error));
            }
        }
    }
    written.and_then(|()| out.flush())?;
    let (told, json) = progress.finish();
    match cluster.json && !is_standard {
        true => line(&json.to_string()),
        false => Ok(writeln!(io::stderr(), "{told}")?),
    }
}

/// The items of some keys. Those that are gone meanwhile are left out.
async fn page(cluster: &Cluster, keys: Vec<Bytes>) -> Result<Vec<(Bytes, Item)>, Error> {
    let client = &cluster.client;
    let lengths = cluster.at_level(client.lengths(&keys)).await?;
    let mut items = Vec::with_capacity(keys.len());
    let (mut group, mut bytes) = (Vec::new(), 0);
    let mut left = keys.into_iter().zip(lengths).filter_map(|(key, length)| Some((key, length?))).peekable();
    while let Some((key, length)) = left.next() {
        group.push(key);
        bytes += length;
        if left.peek().is_none_or(|(_, next)| bytes + next > VALUES_BYTES) {
            let found = cluster.at_level(client.get_items(&group)).await?;
            items.extend(group.drain(..).zip(found).filter_map(|(key, item)| Some((key, item?))));
            bytes = 0;
        }
    }
    Ok(items)
}

fn write(out: &mut impl Write, format: FileFormat, key: &Bytes, item: &Item) -> io::Result<()> {
    match format {
        FileFormat::Json => writeln!(out, "{}", lines::of_item(key, item)),
        FileFormat::Resp => {
            // `SET`, which every server takes, knows no flags.
            let mut args = vec![Value::bulk("SET"), Value::Bulk(key.clone()), Value::Bulk(item.value.clone())];
            if let Some(ttl) = item.ttl {
                let ms = ttl.as_millis().max(1).to_string();
                args.extend([Value::bulk("PX"), Value::Bulk(ms.into())]);
            }
            let mut command = Vec::new();
            Value::Array(args).encode(Wire::Resp2, &mut command);
            out.write_all(&command)
        }
    }
}
