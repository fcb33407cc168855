//! Every bound of the ring's state, with its unit and reason.

use core::time::Duration;

/// Largest ring message in bytes: fits a control message of the mesh with its head.
pub const MESSAGE_LEN_MAX: usize = 1_100;
/// Bytes of a message that runs may take, beside its head and whatever else it says.
pub const RUNS_LEN_MAX: usize = 900;
/// Bytes that runs may take in a message that carries promises too.
pub const PAGE_RUNS_LEN_MAX: usize = 450;
/// Witnesses of a ring: two of five may be lost.
pub const WITNESSES_MAX: usize = 5;
/// Pools of a ring, so that the setup fits one message.
pub const POOLS_MAX: usize = 8;
/// Runs of own grants that wait for a majority; beyond it an ask is denied.
pub const GRANTED_RUNS_MAX: usize = 256;
/// Ranges in one message of a succession or a read.
pub const RANGES_MAX: usize = 16;
/// Promises that travel in one message of a setup change: 55 bytes each of IPv6.
pub const PROMISES_MAX: usize = 8;
/// Addresses of a removed peer that travel in one message.
pub const ADDRESSES_MAX: usize = 16;
/// How long everybody has to tell what a removed peer announced.
pub const HEARSAY_PATIENCE: Duration = Duration::from_millis(500);
/// Longest key of a container, in bytes.
pub const CONTAINER_LEN_MAX: usize = 255;
/// Longest name of a peer that is kept, in bytes.
pub const NAME_LEN_MAX: usize = 64;

/// Owners remembered as removed; the oldest are forgotten first.
pub const REMOVED_MAX: usize = 4_096;
/// Peers known, as many as a mesh may have.
pub const PEERS_MAX: usize = 16_384;
/// Addresses kept of what one other peer announces.
pub const ANNOUNCED_PER_PEER_MAX: usize = crate::space::ALLOCATED_MAX;
/// Requests of local clients that wait for an answer.
pub const REQUESTS_MAX: usize = 1_024;
/// Different asks under way: by subnet and by exact address.
pub const ASKS_MAX: usize = 64;
/// Writes that wait for the disk; beyond it messages are dropped and requests refused.
pub const WRITES_MAX: usize = 16_384;
/// Messages that wait for the disk or the shell; beyond it new ones are dropped: all repeat.
pub const TRANSMITS_MAX: usize = 16_384;
/// Events that wait for the disk or the shell; requests and writes bound them, this only allocates.
pub const EVENTS_MAX: usize = 16_384;
/// Members whose ring claims are counted by reason; others are counted together.
pub const REFUSED_PEERS_MAX: usize = 64;

/// One peer is asked for this long before the next one.
pub const ASK_PATIENCE: Duration = Duration::from_millis(250);
/// Pause between two rounds of asking everybody.
pub const ASK_PAUSE: Duration = Duration::from_millis(250);
/// Longest pause between two rounds of a background ask.
pub const ASK_PAUSE_MAX: Duration = Duration::from_secs(10);
/// Proposals are repeated after this time, then after twice that, and so on.
pub const RETRY_FIRST: Duration = Duration::from_millis(200);
/// Longest pause between repetitions of a proposal.
pub const RETRY_MAX: Duration = Duration::from_secs(5);
/// A taker that met a higher term waits at least this long, and at most five times as long.
pub const YIELD_MIN: Duration = Duration::from_millis(100);
/// One digest to one random neighbour in about this time.
pub const DIGEST_EVERY: Duration = Duration::from_secs(5);
/// A daemon that was away for less than this, and was not cut off before, cannot have been removed
/// meanwhile but by force: it goes on at once.
pub const REMOVAL_SILENCE: Duration = Duration::from_secs(2);
/// How much longer than that a peer has to be silent before it is removed: what its last sign of
/// life and the news of its return may take. A peer counts as silent only once the mesh has noticed, a second
/// after its last word, so that in truth there is three times as much.
pub const REMOVAL_MARGIN: Duration = Duration::from_millis(500);
/// Longest wait of the only witness for other owners at a start with a token, and of one that knows of
/// no other owner for word that there are some; then that has to do.
pub const START_PATIENCE: Duration = Duration::from_secs(2);
/// Members have to be reachable for this long before the witness set grows by them.
pub const GROWTH_PATIENCE: Duration = Duration::from_secs(1);
/// A witness waits this long, times its rank, before it changes the setup in place of others.
pub const LEADER_PATIENCE: Duration = Duration::from_secs(2);
/// Members have this long to answer before a forced reform goes on without them.
pub const REFORM_PATIENCE: Duration = Duration::from_secs(2);
/// Peers that are not there and whose announcements somebody remembers, in one message.
pub const GONE_MAX: usize = 64;
/// Forced reforms that a peer has answered and of whose end it does not know, at most.
pub const LEFT_MAX: usize = 16;
/// A founding peer waits this long, times its rank, before it proposes.
pub const FOUNDING_PATIENCE: Duration = Duration::from_millis(500);
/// Neighbours that news of the ring goes on to: all in a small mesh. In a mesh of 1,000 peers there
/// are 13 to 20 neighbours; chance misses about one peer in 400 with six, and digests tell it.
pub const PUSHED_TO_MAX: usize = 6;
/// What two rings are has to be stable for this long before one gives way.
pub const ADOPTION_PATIENCE: Duration = Duration::from_secs(2);
/// A hold ends after this time of the successor's life.
pub const HOLD_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Smallest first block, in addresses.
pub const FIRST_BLOCK_MIN: u128 = 16;
/// Largest first block, in addresses.
pub const FIRST_BLOCK_MAX: u128 = 4_096;
/// The first block is this part of the pool, between the two.
pub const FIRST_BLOCK_PART: u128 = 1_024;
/// Messages in answer to one message.
pub const ANSWERS_MAX: usize = 16;
/// Whether more space is to be asked for is looked at this often.
pub const WANT_EVERY: Duration = Duration::from_millis(250);
/// What others announce is written down this often, so that a removed peer's addresses are known
/// after a restart too.
pub const ANNOUNCED_EVERY: Duration = Duration::from_secs(10);
/// Pieces of own space that are doubted at a time.
pub const DISPUTED_RUNS_MAX: usize = 64;
/// Addresses that are reserved ahead for a subnet that is asked for often, at first.
pub const RESERVE_MIN: u128 = 16;
/// And at most: what 10,000 allocations a second take in 50 ms, and no more entries than a restart can
/// let rest at once.
pub const RESERVE_MAX: u128 = 512;
/// At most this part of a subnet's free addresses is reserved.
pub const RESERVE_PART: u128 = 4;
/// Two allocations from a subnet within this time are often.
pub const RESERVE_WITHIN: Duration = Duration::from_secs(2);
/// What was not used for this time is reserved no more.
pub const RESERVE_IDLE: Duration = Duration::from_secs(10);
/// Subnets for which addresses are reserved; beyond it the longest unused one has none any more.
pub const RESERVE_SUBNETS_MAX: usize = 16;
