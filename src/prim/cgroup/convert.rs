//! The specification speaks cgroup v1; these are the conversions to v2 that runc and crun agree on.

/// `cpu.shares` (2 to 262144) as `cpu.weight` (1 to 10000): the quadratic fit of runc 1.3.2 and crun 1.23, which maps the
/// minimum, the default (1024 to 100) and the maximum onto each other.
pub fn shares_to_weight(shares: u64) -> u64 {
    match shares {
        0..=2 => 1,
        262_144.. => 10_000,
        _ => {
            let log = (shares as f64).log2();
            let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
            10f64.powf(exponent).ceil() as u64
        }
    }
}

/// `blkio.weight` (10 to 1000) as `io.weight` (1 to 10000), linear.
pub fn io_weight(weight: u16) -> u64 {
    1 + u64::from(weight.saturating_sub(10)) * 9999 / 990
}

/// Memory plus swap, as v1 and the specification count, as the swap alone of `memory.swap.max`; `None` is no limit. The
/// caller has checked that `total` is not below `memory`.
pub fn swap_alone(total: i64, memory: Option<i64>) -> Option<i64> {
    match (total, memory) {
        (..0, _) => None,
        // With unlimited memory there is nothing to subtract.
        (total, None | Some(..0)) => Some(total),
        (total, Some(memory)) => Some(total - memory),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares() {
        // Worked out by hand from the formula: 512 is 2^9, so 10^((81 + 1125)/612 - 7/34) = 10^1.7647 = 58.2.
        let table = [
            (1, 1),
            (2, 1),
            (3, 2),
            (256, 35),
            (512, 59),
            (1024, 100),
            (2048, 174),
            (10_240, 639),
            (262_143, 10_000),
            (262_144, 10_000),
            (u64::MAX, 10_000),
        ];
        for (shares, weight) in table {
            assert_eq!(shares_to_weight(shares), weight, "shares {shares}");
        }
        assert!((2..=262_144u64).is_sorted_by_key(shares_to_weight), "more shares never weigh less");
    }

    #[test]
    fn block_io() {
        let table = [(10, 1), (11, 11), (100, 910), (500, 4950), (1000, 10_000)];
        for (weight, io) in table {
            assert_eq!(io_weight(weight), io, "weight {weight}");
        }
    }

    #[test]
    fn swap() {
        assert_eq!(swap_alone(-1, Some(100)), None);
        assert_eq!(swap_alone(300, Some(100)), Some(200));
        assert_eq!(swap_alone(100, Some(100)), Some(0));
        assert_eq!(swap_alone(300, Some(-1)), Some(300));
        assert_eq!(swap_alone(300, None), Some(300));
    }
}
