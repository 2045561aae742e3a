//! The Rust client at work: sessions with a time to live, a counter that many share, a lock, a change under a condition, batches and a scan.
//! `cargo run --example client -- 127.0.0.1:5000 [more nodes]`. A test runs it against three nodes.

use std::error::Error;
use std::time::Duration;

use futures_util::TryStreamExt;
use trellis::client::{Client, ErrorKind, Level, Lifetime};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let nodes: Vec<String> = std::env::args().skip(1).collect();
    tour(&nodes).await
}

/// Everything in turn; fails where something is not as it should be.
pub(crate) async fn tour(nodes: &[String]) -> Result<(), Box<dyn Error>> {
    let client = Client::connect(nodes).await?;
    println!("connected, members: {}", client.members().join(" "));

    // A session that goes after half an hour.
    client.set("session:7", "user 42").ttl(Duration::from_secs(1800)).await?;
    assert_eq!(client.get("session:7").await?.as_deref(), Some(&b"user 42"[..]));
    assert!(matches!(client.ttl("session:7").await?, Lifetime::Left(left) if left <= Duration::from_secs(1800)));
    println!("a session is kept");

    // Eight tasks count together. Each count is taken by a majority of replicas, and once.
    client.delete("visits").await?;
    let tasks = (0..8).map(|_| {
        let client = client.clone();
        tokio::spawn(async move {
            for _ in 0..25 {
                client.incr("visits", 1).consistency(Level::Quorum).await?;
            }
            Ok::<_, trellis::client::Error>(())
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await??;
    }
    let visits = client.get("visits").consistency(Level::Quorum).await?;
    assert_eq!(visits.as_deref(), Some(&b"200"[..]));
    println!("eight tasks counted to 200");

    // A lock is whoever's who stores it first, and is given back only by its owner.
    client.delete("lock").await?;
    assert!(client.set("lock", "me").ttl(Duration::from_secs(10)).if_absent().await?);
    assert!(!client.set("lock", "you").ttl(Duration::from_secs(10)).if_absent().await?);
    let mine = client.get_item("lock").await?.ok_or("the lock is held")?;
    assert!(client.delete_version("lock", mine.version).await?);
    println!("a lock was taken and given back");

    // A change that depends on what was read.
    client.set("cart", "bread").await?;
    while let Some(item) = client.get_item("cart").await? {
        let longer = [&item.value[..], b",butter"].concat();
        if client.set("cart", longer).if_version(item.version).await? {
            break;
        }
    }
    assert_eq!(client.get("cart").await?.as_deref(), Some(&b"bread,butter"[..]));
    println!("a cart was changed");

    // Many at once, all that match, and any command.
    client.set_many((0..1000).map(|n| (format!("item:{n}"), n.to_string()))).await?;
    let values = client.get_many(["item:0", "item:999", "item:1000"]).await?;
    assert_eq!(values.iter().map(Option::is_some).collect::<Vec<_>>(), [true, true, false]);
    let mut items: Vec<_> = client.scan("item:*").try_collect().await?;
    items.sort_unstable();
    items.dedup();
    assert_eq!(items.len(), 1000);
    println!("1000 items were stored and found, {:?} more are counted", client.command(["DBSIZE"]).await?);

    // Errors say what they are, and whether anything was done.
    let error = client.incr("session:7", 1).await.err().ok_or("text is no number")?;
    assert_eq!(error.kind(), ErrorKind::Command);
    println!("refused as it should be: {error} (applied: {:?})", error.applied());

    client.close().await;
    Ok(())
}
