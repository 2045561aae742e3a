//! Every bound that is not a setting, by name, with its reason. Settings are in `config`.

use std::time::Duration;

/// Longest key. Far beyond what anyone names a key, and the length of the longest fits the three bytes an entry spends on it at the most.
pub const KEY_BYTES_MAX: usize = 64 * 1024;
/// Longest value unless configured.
pub const VALUE_BYTES_DEFAULT: usize = 64 * 1024 * 1024;
/// Longest value that can be configured, Redis's own bound.
pub const VALUE_BYTES_MAX: usize = 512 * 1024 * 1024;
/// Longest inline command, Redis's own bound.
pub const INLINE_BYTES_MAX: usize = 64 * 1024;
/// Arguments of one command, Redis's own bound.
pub const ARGS_MAX: usize = 1024 * 1024;
/// All arguments of one command together, Redis's own bound (`client-query-buffer-limit`).
pub const COMMAND_BYTES_MAX: usize = 1024 * 1024 * 1024;
/// Values from here on live in an allocation of their own, are read straight into it and sent straight from it.
pub const LARGE_VALUE_BYTES: usize = 32 * 1024;
/// Operations of one `BITFIELD`, which a store does in one go: well under a millisecond.
pub const BITFIELD_OPS_MAX: usize = 16 * 1024;
/// Commands a connection hands over at once. More wait in its read buffer: it bounds one client's turn.
pub const BATCH_OPS_MAX: usize = 1024;
/// What a connection reads at once.
pub const READ_CHUNK_BYTES: usize = 64 * 1024;
/// Replies a client may leave unread before its connection stops reading. Clients that write 200,000 commands before the first read
/// need room for their replies; one that goes further stalls itself.
pub const OUTPUT_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Requests in flight on one data arbiter before clients are told `BUSY`: room for 500 clients with pipelines of 64, and some 50 ms of
/// work, so that what is let in is still worth answering.
pub const INFLIGHT_OPS_MAX: usize = 32 * 1024;
/// Operations of one client's batch that are under way at a time; the others follow. A store works on them for some milliseconds, so that
/// a command with a million keys doesn't hold everybody else up.
pub const OPS_UNDER_WAY_MAX: usize = 8 * 1024;
/// Bytes of such requests.
pub const INFLIGHT_BYTES_MAX: usize = 512 * 1024 * 1024;
/// The same for requests peers send; a pool of its own, else two busy nodes wait for each other. Their questions have another, as large:
/// what two nodes coordinate for others may need an answer of each.
pub const PEER_INFLIGHT_OPS_MAX: usize = 64 * 1024;
/// Operations a transaction queues. A store does those of one partition in one go: at this number everybody else waits some 100 ms, as with
/// Redis, which knows no bound.
pub const TRANSACTION_OPS_MAX: usize = 128 * 1024;
/// Bytes of all commands sent between `MULTI` and `EXEC`: what half of the requests in flight may take.
pub const TRANSACTION_BYTES_MAX: usize = INFLIGHT_BYTES_MAX / 2;
/// The same of one whose keys are all of one partition, unless it is a single command: what an outbox takes of one batch, so that no part
/// of it is left out on its way to the replicas.
pub const ONE_GO_BYTES_MAX: usize = OUTBOX_BYTES_MAX;
/// Keys a connection watches, which it remembers until `EXEC`.
pub const WATCHED_KEYS_MAX: usize = 16 * 1024;
/// Bytes of these keys.
pub const WATCHED_BYTES_MAX: usize = 1024 * 1024;

/// Longest name of a channel, or pattern: that of the events of the longest key.
pub const CHANNEL_BYTES_MAX: usize = KEY_BYTES_MAX + 64;
/// Bytes of a pattern of channels. Each message is compared with each pattern, at worst byte by byte with each byte.
pub const PATTERN_BYTES_MAX: usize = 1024;
/// Names one connection subscribes to: more than anybody has seen, and what a node with a thousand such connections can hold.
pub const SUBSCRIPTIONS_MAX: usize = 64 * 1024;
/// Bytes of these names.
pub const SUBSCRIPTIONS_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Subscriptions of all connections of a node: some 100 MiB of tables.
pub const NODE_SUBSCRIPTIONS_MAX: usize = 1024 * 1024;
/// Bytes of all names subscribed to on a node.
pub const NODE_SUBSCRIPTIONS_BYTES_MAX: usize = 128 * 1024 * 1024;
/// Messages that wait for one subscriber, in bytes. One more, and it is cut off: Redis's `client-output-buffer-limit pubsub 32mb`.
pub const PUSH_BYTES_MAX: usize = 32 * 1024 * 1024;
/// The same of all subscribers of a node. While it is used up, those are cut off for which more than [`PUSH_BYTES_KEPT`] wait.
pub const PUSHES_BYTES_MAX: usize = 512 * 1024 * 1024;
/// What may wait for a subscriber whatever waits for others.
pub const PUSH_BYTES_KEPT: usize = 1024 * 1024;
/// Messages are taken to be written while less than this waits to be.
pub const PUSH_BYTES_AHEAD: usize = 256 * 1024;
/// Messages that wait to be sent to one member, in bytes. What comes on top is dropped and counted.
pub const PUBLISH_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Events of keys on their way from a node's stores to be published. What comes on top is dropped and counted.
pub const NOTICES_MAX: usize = 256 * 1024;

/// Connections that have said nothing yet; further ones count as clients at once. In the descriptors kept for peers there is room for them.
pub const UNDECIDED_CONNECTIONS_MAX: usize = 256;
/// Connections from peers: one from each data arbiter of each, 16 of each of the most members there may be.
pub const PEER_CONNECTIONS_MAX: usize = 16 * 1024;
/// Who has said nothing for this long after it connected counts as a client.
pub const FIRST_BYTE_MAX: Duration = Duration::from_secs(1);
/// A native connection says who it is within this time after its first byte.
pub const HELLO_MAX: Duration = Duration::from_secs(2);

/// Frames of one client's native connection that are worked on before no more are read: enough for one that multiplexes requests above level
/// one, each of which waits for other nodes. A client stays below it, so that its question whether the node is there is still read.
pub const CLIENT_FRAMES_UNDER_WAY_MAX: usize = 256;

/// What the connections of one data arbiter hold together, of unfinished commands and of unread replies. When it is used up, commands are
/// refused with `BUSY` and connections with unread replies stop reading: room for 16 clients with the largest values by default.
pub const CONNECTIONS_BYTES_MAX: usize = 1024 * 1024 * 1024;
/// Replies of one client's batch beyond which the rest of it is refused.
pub const BATCH_REPLY_BYTES_MAX: usize = OUTPUT_BYTES_MAX;
/// A client whose replies take this much memory, shared values apart, is cut off: Redis's `client-output-buffer-limit`.
pub const OUTPUT_BYTES_CUT: usize = 1024 * 1024 * 1024;

/// Longest frame of the native protocol: one value of the largest size and its key, with room for the rest.
pub const FRAME_BYTES_MAX: usize = VALUE_BYTES_MAX + KEY_BYTES_MAX + 64 * 1024;
/// Longest membership taken: two thousand records with room to spare.
pub const MEMBERSHIP_BYTES_MAX: usize = 4 * 1024 * 1024;
/// A sender closes a frame at this size, unless one entry is larger.
pub const FRAME_BYTES_TARGET: usize = 256 * 1024;
/// Unsent or unacknowledged replication per peer and data arbiter. A batch that finds as much is dropped for that peer and counted, and
/// its partitions marked for synchronisation; one that finds less passes whole, whatever its size, which the permits at the door bound. So an
/// outbox holds at most this and one batch.
pub const OUTBOX_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Hints of what members could not be sent, unless configured: keys of half a million writes.
pub const HINTS_BYTES_DEFAULT: u64 = 64 * 1024 * 1024;

/// Recent request ids an owner remembers for retries of what must not happen twice.
pub const RECENT_REQUESTS_MAX: usize = 64 * 1024;
/// Bytes of the replies remembered with them, per store; the oldest go first.
pub const RECENT_REPLIES_BYTES_MAX: usize = 8 * 1024 * 1024;
/// A reply longer than this is not remembered, only that there was one.
pub const RECENT_REPLY_BYTES_MAX: usize = 64 * 1024;
/// How long; longer than any request may take.
pub const RECENT_REQUEST_TTL: Duration = Duration::from_secs(30);

/// Remote stamps further ahead than this are refused.
pub const CLOCK_AHEAD_MAX: Duration = Duration::from_millis(500);

/// A replica keeps a key for the coordinator that surveyed it for this long: the time the coordinator has to begin, and as much again for
/// its write to arrive.
pub const LEASE_MAX: Duration = Duration::from_millis(400);
/// What a survey found is acted upon within this time: half of a lease.
pub const SURVEY_FRESH_MAX: Duration = Duration::from_millis(200);
/// What a coordinator stamps under a lease lies within this time of its ballot, so that the next holder knows what to stamp above.
pub const LEASE_STAMPS_MAX: Duration = Duration::from_millis(300);
/// Leases a store remembers. One more, and the oldest is forgotten: its holder has to survey again.
pub const LEASES_MAX: usize = 64 * 1024;

/// A link with requests outstanding on which no byte arrives for this long has stalled: what is asked goes to the next replica, which so can
/// serve within 300 ms.
pub const LINK_SILENCE_MAX: Duration = Duration::from_millis(200);
/// A call may be begun within this time of its sending, and of the way of what is sent before it. Then its sender may go to another replica.
pub const CALL_BEGINS_MAX: Duration = Duration::from_millis(200);
/// A link that stays silent for this long is closed, and what was under way on it left to synchronisation.
pub const LINK_STALL_MAX: Duration = Duration::from_secs(2);
/// Slowest way to a peer that many bytes are not late on: half of 1 Gbit/s. A call behind bytes may begin so much later.
pub const LINK_BYTES_PER_SEC_MIN: u64 = 64 * 1024 * 1024;
/// Unsent bytes per peer and data arbiter, replication among them, behind which no further call is taken.
pub const LINK_BYTES_MAX: u64 = 2 * OUTBOX_BYTES_MAX as u64;
/// Time a dial may take.
pub const DIAL_TIMEOUT: Duration = Duration::from_millis(200);
/// After a failed dial or a broken link the peer is passed over for this long.
pub const LINK_RETRY_AFTER: Duration = Duration::from_millis(250);
/// A client's request is answered within this time, with `TIMEOUT` if need be.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// A request that has begun to arrive must be complete within this time, plus one second for each [`CLIENT_BYTES_PER_SEC_MIN`] it brings.
/// Clients between requests are not in a hurry; see `client_timeout` in the configuration.
pub const CLIENT_REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Slowest upload that is not cut off.
pub const CLIENT_BYTES_PER_SEC_MIN: usize = 64 * 1024;
/// A client that has replies waiting and takes none of them for this long is disconnected.
pub const CLIENT_STALL_TIMEOUT: Duration = Duration::from_secs(60);
/// The same while [`CONNECTIONS_BYTES_MAX`] is used up, so that those who don't read can't keep the others out for long.
pub const CLIENT_STALL_PRESSED: Duration = Duration::from_secs(5);

/// Keys one expiry turn looks at, per store.
pub const EXPIRY_KEYS_PER_TURN: usize = 2_000;
/// Entries one synchronisation answer carries.
pub const SYNC_ENTRIES_PER_FRAME: usize = 2_000;
/// Bytes from which on a synchronisation answer, or what is pushed at once, ends.
pub const SYNC_BYTES_PER_FRAME: usize = 16 * 1024 * 1024;
/// Largest datagram the gossip sends: fits an Ethernet frame with every tunnel header in use.
pub const DATAGRAM_BYTES_MAX: usize = 1_200;
