//! Idle hosts fall into step: whoever is asked asks the others.

use super::*;

/// Hosts that all know each other, and the datagrams under way between them.
pub(super) struct Idle {
    pub(super) hosts: Vec<Mesh>,
    under_way: Vec<(u64, SocketAddr, SocketAddr, Vec<u8>)>,
    /// For each host, the milliseconds in which it did something.
    awake: Vec<Vec<u64>>,
    millisecond: u64,
    /// Nothing goes from the first to the second.
    pub(super) cut: Option<(SocketAddr, SocketAddr)>,
}

impl Idle {
    pub(super) fn new(count: u8) -> Self {
        let mut hosts: Vec<Mesh> = (1..=count).map(|number| mesh(number, 1, false)).collect();
        for (number, host) in (1..).zip(&mut hosts) {
            let target = |other| Target {
                name: String::from("other"),
                addresses: vec![at(other)],
            };
            let targets = (1..=count).filter(|other| *other != number).map(target);
            host.handle_targets(targets.collect(), start());
        }
        let awake = vec![Vec::new(); hosts.len()];
        Idle {
            hosts,
            under_way: Vec::new(),
            awake,
            millisecond: 0,
            cut: None,
        }
    }

    pub(super) fn now(&self) -> Instant {
        start() + Duration::from_millis(self.millisecond)
    }

    /// Whatever happens in `milliseconds`; a datagram takes one.
    pub(super) fn run(&mut self, milliseconds: u64) {
        for _ in 0..milliseconds {
            self.millisecond += 1;
            let now = start() + Duration::from_millis(self.millisecond);
            let (due, later) = core::mem::take(&mut self.under_way)
                .into_iter()
                .partition(|(due, ..)| *due <= self.millisecond);
            self.under_way = later;
            for number in 0..self.hosts.len() {
                self.turn(number, &due, now);
            }
        }
    }

    fn turn(
        &mut self,
        number: usize,
        due: &[(u64, SocketAddr, SocketAddr, Vec<u8>)],
        now: Instant,
    ) {
        let (host, me) = (&mut self.hosts[number], at(number as u8 + 1));
        let mut did = false;
        if host.poll_timeout().is_some_and(|(due, _)| due <= now) {
            host.handle_timeout(now);
            did = true;
        }
        for (_, from, _, bytes) in due.iter().filter(|(_, _, to, _)| *to == me) {
            host.handle_datagram(*from, bytes, now);
            did = true;
        }
        let arrives = self.millisecond + 1;
        let sent = sent(host).into_iter();
        let sent = sent.filter(|(to, _)| self.cut != Some((me, *to)));
        self.under_way
            .extend(sent.map(|(to, bytes)| (arrives, me, to, bytes)));
        if did {
            self.awake[number].push(self.millisecond);
        }
    }

    /// How often each host woke in `milliseconds`: what follows within 20 ms is one time.
    fn wakes(&mut self, milliseconds: u64) -> Vec<usize> {
        self.awake.iter_mut().for_each(Vec::clear);
        self.run(milliseconds);
        let count = |awake: &Vec<u64>| {
            let pairs = awake.windows(2);
            1 + pairs.filter(|pair| pair[1] - pair[0] > 20).count()
        };
        self.awake.iter().map(count).collect()
    }
}

#[test]
fn a_host_without_traffic_wakes_once_for_all_its_neighbours() {
    for count in [2, 3, 5, 9] {
        let mut idle = Idle::new(count);
        idle.run(30_000);
        let wakes = idle.wakes(60_000);
        std::println!("{count} hosts wake {wakes:?} times a minute");
        // Every 4 s, and a few times for what has its own time (cost, length of datagrams, records, rekeying).
        let most = wakes.iter().max().copied().unwrap_or_default();
        assert!(most <= 25, "{count} hosts: {wakes:?}");
    }
}
