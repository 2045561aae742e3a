//! Plain counters, one set per actor or connection pool, added up when someone asks. No atomics: each set has one owner. Names are those
//! of the metrics page.

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident => $metric:literal,)*) => {
        /// Something counted.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(usize)]
        pub enum Counter {
            $($(#[$doc])* $name,)*
        }

        impl Counter {
            /// Every counter, in order.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The name on the metrics page, without the `trellis_` prefix and the `_total` suffix.
            pub fn metric(self) -> &'static str {
                match self {
                    $(Self::$name => $metric,)*
                }
            }
        }
    };
}

counters! {
    /// Connections accepted.
    ConnectionsAccepted => "connections_accepted",
    /// Connections that could not be accepted, most often because too many files are open.
    AcceptsFailed => "accepts_failed",
    /// Connections refused at the limit.
    ConnectionsRefused => "connections_refused",
    /// Connections closed because nothing came for too long.
    ConnectionsIdle => "connections_closed_idle",
    /// Connections closed because the client did not take its replies or finish its request in time.
    ConnectionsSlow => "connections_closed_slow",
    /// Connections closed because their replies took too much memory.
    ConnectionsOutput => "connections_closed_output",
    /// Connections closed for breaking the RESP protocol or its limits.
    RespErrors => "protocol_errors_resp",
    /// Connections closed for breaking the memcached protocol or its limits.
    MemcachedErrors => "protocol_errors_memcached",
    /// Connections closed for breaking the native protocol or its limits.
    NativeErrors => "protocol_errors_native",
    /// Native connections refused for another cluster name or protocol version.
    NativeStrangers => "native_strangers_refused",
    /// Requests refused because too much was in flight.
    Busy => "requests_refused_busy",
    /// Requests refused because the node is stopping.
    Shutdown => "requests_refused_shutdown",
    /// Commands from clients.
    Commands => "commands",
    /// Commands that asked for something unknown or malformed.
    CommandErrors => "commands_refused",
    /// Operations executed for a key this node coordinates.
    OpsLocal => "ops_local",
    /// Operations forwarded to their coordinator.
    OpsForwarded => "ops_forwarded",
    /// Operations other nodes forwarded here.
    OpsReceived => "ops_received",
    /// Forwarded operations sent again to the next replica.
    OpsRetried => "ops_retried",
    /// Retried operations answered from memory instead of done twice.
    OpsDeduplicated => "ops_deduplicated",
    /// Forwarded operations refused because this node does not serve the key, or stands back for another.
    OpsMisdirected => "ops_misdirected",
    /// Transactions refused because they were too large or watched too much.
    TransactionsRefused => "transactions_refused",
    /// Transactions not done because a watched key had changed.
    TransactionsFailed => "transactions_failed",
    /// Forwarded operations refused because their time to begin was over.
    OpsLate => "ops_late",
    /// Requests answered `NOQUORUM`.
    NoQuorum => "requests_noquorum",
    /// Requests answered `TIMEOUT`.
    Timeout => "requests_timeout",
    /// Operations not executed because their time was over, or what they rested on no longer held. The last are tried again.
    Abandoned => "requests_abandoned",
    /// Reads that found a value.
    Hits => "keyspace_hits",
    /// Reads that found none.
    Misses => "keyspace_misses",
    /// Values dropped at the memory budget.
    Evicted => "evicted_keys",
    /// Values dropped at their deadline.
    Expired => "expired_keys",
    /// Writes refused at the memory budget.
    OutOfMemory => "writes_refused_oom",
    /// Items of memcached clients refused because they were too large.
    ItemsTooLarge => "items_refused_too_large",
    /// Entries from replicas that were applied.
    EntriesApplied => "entries_applied",
    /// Entries from replicas that lost to what was here.
    EntriesStale => "entries_stale",
    /// Entries refused because their clock ran too far ahead.
    EntriesFarFuture => "entries_refused_far_future",
    /// Entries refused or dropped because they had been deleted so long ago that everybody has forgotten.
    EntriesOutlived => "entries_outlived",
    /// Partitions of which this node found out that every replica has all there was up to some moment.
    PartitionsSettled => "partitions_settled",
    /// Tombstones dropped because every replica had them.
    TombstonesCollected => "tombstones_collected",
    /// Entries queued for replicas.
    EntriesSent => "replication_entries",
    /// Entries dropped because a replica's outbox was full or its link down.
    EntriesDropped => "replication_entries_dropped",
    /// Keys noted for a replica that could not be sent them; one that is noted already counts once.
    HintsStored => "hints_stored",
    /// Such keys that the replica has now.
    HintsHandedOver => "hints_handed_over",
    /// Such keys that were given up, and left to comparison: for want of room, too old, refused, evicted, or of a member that is none any more.
    HintsDropped => "hints_dropped",
    /// Bytes of replication sent.
    ReplicationBytes => "replication_bytes",
    /// Links to peers opened.
    LinksOpened => "links_opened",
    /// Dials that failed.
    DialsFailed => "dials_failed",
    /// Links that broke.
    LinksBroken => "links_broken",
    /// Links given up for silence.
    LinksSilent => "links_silent",
    /// Entries that reads carried to replicas that lacked them.
    ReadRepairs => "read_repairs",
    /// Reads at level one after which the replicas were asked what they hold.
    ReadsChecked => "reads_checked",
    /// Looks at a key's replicas that had to be repeated.
    SurveysRepeated => "surveys_repeated",
    /// Keys and entries refused because another coordinator has the key's lease.
    LeasesRefused => "leases_refused",
    /// Keys and entries refused because the sender counted by another route.
    RoutesRefused => "routes_refused",
    /// Partitions compared with a replica and found equal.
    SyncsEqual => "sync_partitions_equal",
    /// Partitions compared with a replica and found apart.
    SyncsDifferent => "sync_partitions_different",
    /// Entries that synchronisation brought here.
    SyncEntries => "sync_entries",
    /// Bytes that comparisons begun by this node took, said and heard, entries included.
    SyncBytes => "sync_bytes",
    /// Datagrams received.
    Datagrams => "gossip_datagrams",
    /// Datagrams refused as no envelope of ours.
    DatagramsGarbage => "gossip_refused_garbage",
    /// Datagrams refused for another protocol version.
    DatagramsVersion => "gossip_refused_version",
    /// Datagrams refused for another cluster name.
    DatagramsCluster => "gossip_refused_cluster",
    /// Members the failure detector had no room for.
    MembersRefused => "gossip_members_refused",
    /// Datagrams the network stack would not take.
    DatagramsUnsent => "gossip_unsent",
    /// Mistakes of the failure detector itself: zero, or a bug to report.
    GossipFaults => "gossip_faults",
    /// Membership exchanges completed.
    MembershipPulls => "membership_pulls",
    /// Membership exchanges put off because too many were under way.
    MembershipPullsPutOff => "membership_pulls_put_off",
    /// Log lines dropped because nobody read them or they could not be written.
    LogLinesDropped => "log_lines_dropped",
    /// Datagrams handed to the network stack.
    DatagramsSent => "gossip_datagrams_sent",
    /// HTTP requests for keys refused as malformed, too large or too slow.
    HttpRefused => "http_requests_refused",
    /// Connections closed by `CLIENT KILL`.
    ConnectionsKilled => "connections_closed_killed",
    /// Messages that clients of this node published.
    MessagesPublished => "messages_published",
    /// Messages sent to subscribers of this node, each once for each of them.
    MessagesDelivered => "messages_delivered",
    /// Messages sent to other members, each once for each of them.
    MessagesForwarded => "messages_forwarded",
    /// Messages that did not get to another member, or of which nobody knows.
    MessagesLost => "messages_lost",
    /// Events of keys that were not published because too many waited to be.
    NoticesDropped => "keyspace_events_dropped",
    /// Connections closed because the client took too little of what it had subscribed to.
    SubscribersSlow => "connections_closed_subscriber",
    /// Subscriptions refused because there were too many.
    SubscriptionsRefused => "subscriptions_refused",
    /// Subscriptions confirmed before all members knew of them.
    SubscriptionsUnconfirmed => "subscriptions_unconfirmed",
}

/// One owner's counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counters([u64; Counter::ALL.len()]);

impl Default for Counters {
    fn default() -> Self {
        Self([0; Counter::ALL.len()])
    }
}

impl Counters {
    /// Adds `n`.
    pub fn add(&mut self, counter: Counter, n: u64) {
        self.0[counter as usize] += n;
    }

    /// Adds one.
    pub fn inc(&mut self, counter: Counter) {
        self.add(counter, 1);
    }

    /// The count.
    pub fn count(&self, counter: Counter) -> u64 {
        self.0[counter as usize]
    }

    /// What was counted after `before`, an earlier state of these counts; nothing where an owner was not asked.
    pub fn since(&self, before: &Self) -> Self {
        let mut since = self.clone();
        for (mine, theirs) in since.0.iter_mut().zip(before.0) {
            *mine = mine.saturating_sub(theirs);
        }
        since
    }

    /// Adds another owner's counts to these.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            *mine += theirs;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_add_up_by_name() {
        let (mut a, mut b) = (Counters::default(), Counters::default());
        a.inc(Counter::Busy);
        b.add(Counter::Busy, 2);
        b.inc(Counter::Hits);
        a.merge(&b);
        assert_eq!((a.count(Counter::Busy), a.count(Counter::Hits)), (3, 1));
        let since = a.since(&b);
        assert_eq!((since.count(Counter::Busy), since.count(Counter::Hits)), (1, 0));
        assert_eq!(b.since(&a).count(Counter::Busy), 0);
    }

    #[test]
    fn metric_names_are_distinct() {
        let mut names: Vec<_> = Counter::ALL.iter().map(|c| c.metric()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Counter::ALL.len());
    }
}
