//! Numbers from 1 to n, k with a weight of 1 / k ^ exponent, in constant time and without a table.
//!
//! By rejection-inversion (Hörmann and Derflinger, 1996). h(x) = x ^ -exponent is integrated once by hand: H. A number drawn
//! evenly between H's ends is taken back through H's inverse to an x, and x rounded to k. The area that leads to k, H(k + 1/2) -
//! H(k - 1/2), is a little larger than k's weight because h bends; what lies in the surplus is thrown away and drawn again,
//! which happens less than once in ten draws.

use super::keys::scatter;

/// See the module's head.
#[derive(Clone, Debug)]
pub(super) struct Zipf {
    n: f64,
    exponent: f64,
    /// H at the lower end, below which the whole weight of 1 lies, and at the upper end.
    low: f64,
    high: f64,
    /// An x that lies so little below its k needs no further look.
    sure: f64,
}

impl Zipf {
    /// Numbers from 1 to `n`.
    pub(super) fn new(n: u64, exponent: f64) -> Zipf {
        let mut zipf = Zipf { n: n.max(1) as f64, exponent, low: 0.0, high: 0.0, sure: 0.0 };
        zipf.low = zipf.integral(1.5) - 1.0;
        zipf.high = zipf.integral(zipf.n + 0.5);
        zipf.sure = 2.0 - zipf.inverse(zipf.integral(2.5) - zipf.weight(2.0));
        zipf
    }

    /// The number that follows from `seed`.
    pub(super) fn draw(&self, mut seed: u64) -> u64 {
        loop {
            seed = scatter(seed);
            let area = self.high + unit(seed) * (self.low - self.high);
            let x = self.inverse(area);
            let k = x.round().clamp(1.0, self.n);
            if k - x <= self.sure || area >= self.integral(k + 0.5) - self.weight(k) {
                return k as u64;
            }
        }
    }

    fn weight(&self, x: f64) -> f64 {
        (-self.exponent * x.ln()).exp()
    }

    /// (x ^ (1 - exponent) - 1) / (1 - exponent), which is ln x for an exponent of 1 and near that next to it.
    fn integral(&self, x: f64) -> f64 {
        let (rest, log) = (1.0 - self.exponent, x.ln());
        if (rest * log).abs() < 1e-9 { log } else { (rest * log).exp_m1() / rest }
    }

    fn inverse(&self, area: f64) -> f64 {
        let rest = 1.0 - self.exponent;
        let log = if (rest * area).abs() < 1e-9 { area } else { (rest * area).max(-1.0).ln_1p() / rest };
        log.exp()
    }
}

/// A number from 0 to 1 out of the upper bits of `seed`.
fn unit(seed: u64) -> f64 {
    (seed >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_as_often_as_the_formula_says() {
        const DRAWS: u64 = 400_000;
        for (n, exponent) in
            [(1, 0.99), (2, 0.99), (50, 0.99), (50, 1.0), (1_000, 0.5), (200, 2.0), (10, 0.0)]
        {
            let zipf = Zipf::new(n, exponent);
            let mut seen = vec![0u64; n as usize];
            (0..DRAWS).for_each(|seed| seen[zipf.draw(seed) as usize - 1] += 1);
            let sum: f64 = (1..=n).map(|k| (k as f64).powf(-exponent)).sum();
            for (k, seen) in (1..=n).zip(seen) {
                let share = (k as f64).powf(-exponent) / sum;
                let expected = share * DRAWS as f64;
                // six times the deviation that chance gives
                let bound = 6.0 * (expected * (1.0 - share)).sqrt() + 1.0;
                let off = (seen as f64 - expected).abs();
                assert!(off <= bound, "{k} of {n}, exponent {exponent}: {seen} times, not {expected:.0}");
            }
        }
    }

    #[test]
    fn many_numbers_are_drawn_without_a_table() {
        let zipf = Zipf::new(1 << 40, 0.99);
        let drawn: Vec<u64> = (0..1_000).map(|seed| zipf.draw(seed)).collect();
        assert!(drawn.iter().all(|k| (1..=1 << 40).contains(k)));
        assert!(drawn.iter().any(|k| *k < 10) && drawn.iter().any(|k| *k > 1 << 20));
    }
}
