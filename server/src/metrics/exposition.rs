//! Families of series, sorted by name, in Prometheus' text format.
//!
//! Labels are sorted here, so that whoever adds a series need not.

use prometheus::TextEncoder;
use prometheus::proto::{
    Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType, Quantile, Summary,
};
use std::collections::BTreeMap;

/// Type of a family of single values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
}

/// A series' labels, in any order.
pub(super) type Labels<'a> = &'a [(&'a str, &'a str)];

/// The answer being put together.
#[derive(Default)]
pub(super) struct Page {
    families: BTreeMap<String, MetricFamily>,
}

fn label_pairs(labels: Labels<'_>) -> Vec<LabelPair> {
    let mut pairs: Vec<LabelPair> = labels
        .iter()
        .map(|(name, value)| {
            let mut pair = LabelPair::default();
            pair.set_name((*name).to_owned());
            pair.set_value((*value).to_owned());
            pair
        })
        .collect();
    pairs.sort_by(|left, right| left.name().cmp(right.name()));
    pairs
}

impl Page {
    fn push(&mut self, name: &str, help: &str, kind: MetricType, metric: Metric) {
        let family = self.families.entry(name.to_owned()).or_insert_with(|| {
            let mut family = MetricFamily::default();
            family.set_name(name.to_owned());
            family.set_help(help.to_owned());
            family.set_field_type(kind);
            family
        });
        family.mut_metric().push(metric);
    }

    /// Adds a value.
    pub(super) fn value(&mut self, kind: Kind, name: &str, help: &str, labels: Labels<'_>, value: f64) {
        let mut metric = Metric::from_label(label_pairs(labels));
        match kind {
            Kind::Counter => {
                let mut counter = Counter::default();
                counter.set_value(value);
                metric.set_counter(counter);
                self.push(name, help, MetricType::COUNTER, metric);
            }
            Kind::Gauge => {
                let mut gauge = Gauge::default();
                gauge.set_value(value);
                metric.set_gauge(gauge);
                self.push(name, help, MetricType::GAUGE, metric);
            }
        }
    }

    /// Adds a counter.
    pub(super) fn counter(&mut self, name: &str, help: &str, labels: Labels<'_>, value: u64) {
        self.value(Kind::Counter, name, help, labels, whole(value));
    }

    /// Adds a gauge.
    pub(super) fn gauge(&mut self, name: &str, help: &str, labels: Labels<'_>, value: f64) {
        self.value(Kind::Gauge, name, help, labels, value);
    }

    /// Adds a histogram: for each bound the number of observations not above it, their sum and the number of all.
    pub(super) fn histogram(
        &mut self,
        name: &str,
        help: &str,
        labels: Labels<'_>,
        cumulative: impl IntoIterator<Item = (f64, u64)>,
        sum: f64,
        count: u64,
    ) {
        let buckets = cumulative
            .into_iter()
            .map(|(bound, seen)| {
                let mut bucket = Bucket::default();
                bucket.set_upper_bound(bound);
                bucket.set_cumulative_count(seen);
                bucket
            })
            .collect();
        let mut histogram = Histogram::default();
        histogram.set_bucket(buckets);
        histogram.set_sample_sum(sum);
        histogram.set_sample_count(count);
        let mut metric = Metric::from_label(label_pairs(labels));
        metric.set_histogram(histogram);
        self.push(name, help, MetricType::HISTOGRAM, metric);
    }

    /// Adds a summary that has observed nothing.
    pub(super) fn empty_summary(&mut self, name: &str, help: &str, quantiles: &[f64]) {
        let quantiles = quantiles
            .iter()
            .map(|at| {
                let mut quantile = Quantile::default();
                quantile.set_quantile(*at);
                quantile.set_value(0.0);
                quantile
            })
            .collect();
        let mut summary = Summary::default();
        summary.set_quantile(quantiles);
        let mut metric = Metric::default();
        metric.set_summary(summary);
        self.push(name, help, MetricType::SUMMARY, metric);
    }

    /// The text.
    pub(super) fn text(self) -> String {
        let families: Vec<MetricFamily> = self.families.into_values().collect();
        // The encoder refuses a family without a name or without a series; push() makes neither.
        TextEncoder::new().encode_to_string(&families).unwrap_or_default()
    }
}

/// A count as the format's floating point number; exact below 2^53.
#[allow(clippy::cast_precision_loss, reason = "the text format knows floating point numbers only")]
pub(super) fn whole(value: u64) -> f64 {
    value as f64
}

/// A signed whole number, likewise.
#[allow(clippy::cast_precision_loss, reason = "the text format knows floating point numbers only")]
pub(super) fn signed(value: i64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_and_families_are_sorted_and_whole_values_carry_no_fraction() {
        let mut page = Page::default();
        page.counter("b_total", "B.", &[("z", "1"), ("A", "2")], 2);
        page.gauge("a", "A.", &[], 1_572_864.0);
        page.histogram("h", "H.", &[("x", "y")], [(0.001, 1), (0.5, 3)], 0.25, 4);
        assert_eq!(
            page.text(),
            "# HELP a A.\n# TYPE a gauge\na 1572864\n\
             # HELP b_total B.\n# TYPE b_total counter\nb_total{A=\"2\",z=\"1\"} 2\n\
             # HELP h H.\n# TYPE h histogram\n\
             h_bucket{x=\"y\",le=\"0.001\"} 1\nh_bucket{x=\"y\",le=\"0.5\"} 3\nh_bucket{x=\"y\",le=\"+Inf\"} 4\n\
             h_sum{x=\"y\"} 0.25\nh_count{x=\"y\"} 4\n"
        );
    }
}
