//! What a mesh looks like before it starts: who is launched with whom, who can reach whom.

use super::random::Random;

/// Which kinds of address a node has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Families {
    V4,
    V6,
    Both,
}

impl Families {
    pub(crate) fn has(self, v6: bool) -> bool {
        match self {
            Families::V4 => !v6,
            Families::V6 => v6,
            Families::Both => true,
        }
    }

    pub(crate) fn meets(self, other: Families) -> bool {
        [false, true]
            .iter()
            .any(|&v6| self.has(v6) && other.has(v6))
    }
}

/// The plan of one mesh.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    pub(crate) families: Vec<Families>,
    /// Peers each node is launched with.
    pub(crate) targets: Vec<Vec<usize>>,
    /// Pairs that can never reach each other directly.
    pub(crate) blocked: Vec<(usize, usize)>,
    /// Nodes that crash during the run and never come back.
    pub(crate) vanishing: Vec<bool>,
    /// Edges that connect all nodes: launched with each other, never blocked.
    pub(crate) tree: Vec<(usize, usize)>,
}

impl Layout {
    pub(crate) fn size(&self) -> usize {
        self.families.len()
    }

    /// A mesh where nobody is blocked and nobody vanishes; each is launched with one or two
    /// earlier ones.
    pub(crate) fn open(size: usize, random: &mut Random) -> Self {
        let mut layout = Layout::bare(vec![Families::V4; size], vec![false; size]);
        layout.plant(random);
        layout.add_targets(size / 2, random);
        layout
    }

    /// A mesh where the first `open` can be called by everybody, and the others know two of them.
    pub(crate) fn behind(size: usize, open: usize, random: &mut Random) -> Self {
        let mut layout = Layout::bare(vec![Families::V4; size], vec![false; size]);
        for node in 1..size {
            for _ in 0..2 {
                let target = random.below(open.min(node));
                if !layout.targets[node].contains(&target) {
                    layout.targets[node].push(target);
                }
            }
        }
        layout
    }

    /// A mesh with mixed underlays, blocked pairs and vanishing peers, but still one from which
    /// the survivors can always find each other.
    pub(crate) fn rough(size: usize, random: &mut Random) -> Self {
        let families = (0..size)
            .map(|node| match random.below(10) {
                _ if node == 0 => Families::Both,
                0 => Families::V6,
                1..=4 => Families::Both,
                _ => Families::V4,
            })
            .collect();
        let mut vanishing = vec![false; size];
        for _ in 0..random.below(1 + size / 6) {
            vanishing[1 + random.below(size - 1)] = true;
        }
        let mut layout = Layout::bare(families, vanishing);
        layout.plant(random);
        layout.add_targets(size / 4, random);
        layout.block(random);
        layout
    }

    fn bare(families: Vec<Families>, vanishing: Vec<bool>) -> Self {
        Layout {
            targets: vec![Vec::new(); families.len()],
            families,
            blocked: Vec::new(),
            vanishing,
            tree: Vec::new(),
        }
    }

    /// Chooses the tree. Vanishing nodes are its leaves, so that it survives them.
    fn plant(&mut self, random: &mut Random) {
        let mut planted = vec![0];
        let mut order: Vec<usize> = (1..self.size()).collect();
        for at in (1..order.len()).rev() {
            order.swap(at, random.below(at + 1));
        }
        order.sort_by_key(|&node| self.vanishing[node]);
        for node in order {
            let parents: Vec<usize> = planted
                .iter()
                .copied()
                .filter(|&p| !self.vanishing[p] && self.families[p].meets(self.families[node]))
                .collect();
            let parent = random.pick(&parents).copied().unwrap_or(0);
            self.launch_with(node, parent, random);
            self.tree.push((parent, node));
            planted.push(node);
        }
    }

    fn launch_with(&mut self, a: usize, b: usize, random: &mut Random) {
        let direction = random.below(3);
        for (from, to, wanted) in [(a, b, direction != 0), (b, a, direction != 1)] {
            if wanted && !self.targets[from].contains(&to) {
                self.targets[from].push(to);
            }
        }
    }

    fn add_targets(&mut self, count: usize, random: &mut Random) {
        for _ in 0..count {
            let (a, b) = random.pair(self.size());
            self.launch_with(a, b, random);
        }
    }

    fn block(&mut self, random: &mut Random) {
        let shares: &[f64] = if self.size() <= 10 {
            &[0.0, 0.2, 0.6]
        } else {
            &[0.0, 0.1, 0.3]
        };
        let share = random.pick(shares).copied().unwrap_or_default();
        for a in 0..self.size() {
            for b in 0..a {
                let in_tree = self.tree.contains(&(a, b)) || self.tree.contains(&(b, a));
                if !in_tree && random.chance(share) {
                    self.blocked.push((a, b));
                }
            }
        }
    }

    /// Cuts one edge of the tree: which side each node is then on. Both sides hang together.
    pub(crate) fn halves(&self, random: &mut Random) -> Vec<bool> {
        let mut far = vec![false; self.size()];
        let Some(&(_, root)) = random.pick(&self.tree) else {
            return far;
        };
        far[root] = true;
        // Parents come before their children in the tree's order.
        for &(parent, child) in &self.tree {
            far[child] |= far[parent];
        }
        far
    }
}
