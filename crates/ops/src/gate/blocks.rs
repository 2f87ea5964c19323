//! Whether a difference in latency shows all through a step.
//!
//! Answers aren't independent: a moment in which one replica or its processor stalls makes hundreds of them slow, and a test
//! that takes each for evidence of its own is certain of what was one accident. So a step is cut into blocks, in each of which
//! canary and baseline answered side by side. If the versions are equal, each block's difference might as well have the
//! other sign (Fisher's randomisation test, The Design of Experiments, 1935), and the sum of the differences exceeds t times
//! the root of the sum of their squares with a chance of at most exp(-t²/2), however they are distributed (Hoeffding, JASA
//! 58, 1963). One accident, however large, never gets beyond t = 1.

use super::{Histogram, float};

/// More are joined in pairs: a step may last for days.
const MOST: usize = 512;

/// What canary and baseline answered from look to look.
#[derive(Clone, Debug, Default)]
pub(super) struct Blocks {
    seen: (Histogram, Histogram),
    blocks: Vec<(Histogram, Histogram)>,
    /// Answers on both sides from which on a block is long enough.
    long: u64,
}

impl Blocks {
    /// Takes over the totals.
    pub(super) fn add(&mut self, canary: &Histogram, baseline: &Histogram) {
        let block = (canary.since(&self.seen.0), baseline.since(&self.seen.1));
        if block.0.count() == 0 || block.1.count() == 0 {
            return;
        }
        self.seen = (canary.clone(), baseline.clone());
        if let Some(last) = self.blocks.last_mut().filter(|last| size(last) < self.long) {
            *last = join(last, &block);
            return;
        }
        if self.blocks.len() == MOST {
            self.blocks = self.blocks.chunks_exact(2).map(|pair| join(&pair[0], &pair[1])).collect();
            self.long = self.blocks.iter().map(size).sum::<u64>() / (MOST as u64 / 2);
        }
        self.blocks.push(block);
    }

    pub(super) fn count(&self) -> usize {
        self.blocks.len()
    }

    /// At most the chance of so great a difference (canary's minus baseline's) over all blocks, if the versions are equal.
    pub(super) fn chance(&self, difference: impl Fn(&Histogram, &Histogram) -> f64) -> f64 {
        let weighted = self.blocks.iter().map(|(canary, baseline)| {
            let (here, there) = (float(canary.count()), float(baseline.count()));
            difference(canary, baseline) * here * there / (here + there)
        });
        let (sum, squares) = weighted.fold((0.0, 0.0), |(sum, squares), d| (sum + d, squares + d * d));
        if sum > 0.0 { (-sum * sum / (2.0 * squares)).exp() } else { 1.0 }
    }
}

fn size(block: &(Histogram, Histogram)) -> u64 {
    block.0.count() + block.1.count()
}

fn join(sum: &(Histogram, Histogram), block: &(Histogram, Histogram)) -> (Histogram, Histogram) {
    (sum.0.and(&block.0), sum.1.and(&block.1))
}
