//! Curves and a time line as inline SVG (SVG 2). Across, places are in percent and the curve is stretched, so that a picture is as
//! wide as its page while its text keeps its size; down, they are in pixels. Colours come from the page's style by class.

use super::html::text;
use super::{size, time};
use crate::sandbox::report::{Report, Sample};
use crate::sandbox::units::{Bytes, Percent};
use std::fmt::Write;

/// The most points that a curve is drawn with.
const POINTS: usize = 600;
/// A curve's height in pixels.
const HEIGHT: f64 = 160.0;
/// A curve's width in its own units, stretched to the picture's.
const WIDTH: f64 = 10_000.0;
/// The most marks in a row of the time line; more could not be told apart.
const MARKS: usize = 200;
/// Limits at more than so many times the peak are told but not drawn: they would flatten the curve.
const DRAWN: f64 = 3.0;

/// A point of a curve: microseconds since the start, and a value.
type Point = (u64, f64);

/// How far the axis of time goes, in microseconds; never 0.
pub fn span(report: &Report) -> u64 {
    let last = report.samples.iter().map(|sample| sample.at_us).max().unwrap_or(0);
    report.wall_us.max(last).max(1)
}

/// Memory over time, with its limit.
pub fn memory(report: &Report) -> String {
    let points: Vec<Point> = report.samples.iter().map(|s| (s.at_us, s.memory as f64)).collect();
    let limit = super::limit(report, "memory").and_then(|value| value.parse::<Bytes>().ok()).map(|b| b.0 as f64);
    // Steps of a power of two, so that the labels are round in K, M and G.
    let step = |most: f64| 2_f64.powi((most / 4.0).max(1024.0).log2().ceil() as i32);
    let label = |value: f64| size(value as u64);
    curve(&Axes { name: "Memory", span: span(report), limit, step: &step, label: &label, stairs: false }, &points)
}

/// CPU use between samples, in percent of one CPU.
pub fn cpu(report: &Report) -> String {
    let limit = super::limit(report, "cpu").and_then(|value| value.parse::<Percent>().ok()).map(|p| p.0);
    let step = |most: f64| nice((most / 4.0).max(5.0));
    let label = |value: f64| format!("{value:.0} %");
    let axes = Axes { name: "CPU", span: span(report), limit, step: &step, label: &label, stairs: true };
    curve(&axes, &cpu_points(&report.samples))
}

/// The share of a CPU that was used up to each sample, from the one before it.
fn cpu_points(samples: &[Sample]) -> Vec<Point> {
    let mut before = Sample::default();
    let mut points = Vec::with_capacity(samples.len());
    for sample in samples {
        // Two samples of one moment say nothing about the time between them.
        if sample.at_us > before.at_us {
            let used = sample.cpu_us.saturating_sub(before.cpu_us) as f64;
            points.push((sample.at_us, used * 100.0 / (sample.at_us - before.at_us) as f64));
            before = *sample;
        }
    }
    points
}

/// At most [`POINTS`] of the points: the lowest and the highest of each stretch, so that no peak is lost, and the ends.
fn thin(points: &[Point]) -> Vec<Point> {
    if points.len() <= POINTS {
        return points.to_vec();
    }
    let inner = &points[1..points.len() - 1];
    let mut kept = vec![points[0]];
    for stretch in inner.chunks(inner.len().div_ceil((POINTS - 2) / 2)) {
        let at = |better: fn(f64, f64) -> bool| {
            (1..stretch.len()).fold(0, |best, i| if better(stretch[i].1, stretch[best].1) { i } else { best })
        };
        let (low, high) = (at(|a, b| a < b), at(|a, b| a > b));
        kept.push(stretch[low.min(high)]);
        if low != high {
            kept.push(stretch[low.max(high)]);
        }
    }
    kept.push(points[points.len() - 1]);
    kept
}

/// The next of 1, 2 or 5 times a power of ten.
fn nice(least: f64) -> f64 {
    let power = 10_f64.powf(least.log10().floor());
    [1.0, 2.0, 5.0, 10.0].map(|n| n * power).into_iter().find(|step| *step >= least * 0.999).unwrap_or(power * 10.0)
}

/// The distance of labels on the axis of time, in microseconds: four or so of them.
fn time_step(span: u64) -> u64 {
    const ROUND: [u64; 13] = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600];
    let least = span / 5 + 1;
    if least < 1_000_000 {
        return nice(least as f64).round() as u64;
    }
    match ROUND.iter().map(|seconds| seconds * 1_000_000).find(|step| *step >= least) {
        Some(step) => step,
        None => nice(least as f64 / 3.6e9).round() as u64 * 3_600_000_000,
    }
}

/// How a curve is drawn.
struct Axes<'a> {
    name: &'static str,
    span: u64,
    limit: Option<f64>,
    /// The distance of labels for a highest value.
    step: &'a dyn Fn(f64) -> f64,
    label: &'a dyn Fn(f64) -> String,
    /// Whether each value holds since the one before, rather than at its moment.
    stairs: bool,
}

/// Per cent of the axis of time.
fn across(at: u64, span: u64) -> f64 {
    at.min(span) as f64 * 100.0 / span as f64
}

fn curve(axes: &Axes, points: &[Point]) -> String {
    if points.is_empty() {
        return format!("<p class=none>{}: it ended before it was looked at.</p>", axes.name);
    }
    let points = thin(points);
    let peak = points.iter().fold(0.0, |most: f64, point| most.max(point.1));
    let drawn = axes.limit.filter(|limit| *limit <= peak * DRAWN);
    let step = (axes.step)(peak.max(drawn.unwrap_or(0.0)));
    // Room above the highest line for its label.
    let top = (peak.max(drawn.unwrap_or(0.0)) * 1.12 / step).ceil().max(1.0) * step;
    let down = |value: f64| HEIGHT - value * HEIGHT / top;

    let told = match axes.limit {
        Some(limit) if drawn.is_none() => format!(", limit {} (far above)", (axes.label)(limit)),
        Some(limit) => format!(", limit {}", (axes.label)(limit)),
        None => String::new(),
    };
    let title = format!("{} over time: {} at most{told}", axes.name, (axes.label)(peak));
    let mut out = format!("<figure class=chart><figcaption>{}</figcaption>", text(&title));
    let _ = write!(out, "<svg role=img aria-label=\"{}\" width=\"100%\" height={HEIGHT}>", text(&title));
    for n in 0..=(top / step).round() as u32 {
        let (y, label) = (down(f64::from(n) * step), (axes.label)(f64::from(n) * step));
        let _ = write!(out, "<line class=grid x2=\"100%\" y1={y:.1} y2={y:.1} />");
        let _ = write!(out, "<text class=y x=-8 y={:.1}>{label}</text>", y + 4.0);
    }
    time_labels(&mut out, axes.span, HEIGHT);
    let (line, area) = paths(axes, &points, &down);
    let _ = write!(
        out,
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" preserveAspectRatio=none width=\"100%\" height={HEIGHT} overflow=visible>\
         <path class=area d=\"{area}\" /><path class=curve d=\"{line}\" /></svg>"
    );
    // A single point has no length.
    if let [(at, value)] = points[..] {
        let _ = write!(out, "<circle class=dot cx=\"{:.2}%\" cy={:.1} r=4 />", across(at, axes.span), down(value));
    }
    if let Some(limit) = drawn {
        let y = down(limit);
        let _ = write!(out, "<line class=limit x2=\"100%\" y1={y:.1} y2={y:.1} />");
        let _ = write!(out, "<text class=\"limit start\" x=6 y={:.1}>limit {}</text>", y - 5.0, (axes.label)(limit));
    }
    out + "</svg></figure>"
}

/// The curve, and the area below it.
fn paths(axes: &Axes, points: &[Point], down: &dyn Fn(f64) -> f64) -> (String, String) {
    let x = |at: u64| across(at, axes.span) * WIDTH / 100.0;
    let (mut line, mut begin, mut end) = (String::new(), x(points[0].0), x(points[0].0));
    for (n, (at, value)) in points.iter().enumerate() {
        let (right, y) = (x(*at), down(*value));
        let _ = match (n, axes.stairs) {
            (0, true) => {
                begin = 0.0;
                write!(line, "M0 {y:.1}H{right:.0}")
            }
            (0, false) => write!(line, "M{right:.0} {y:.1}"),
            (_, true) => write!(line, "V{y:.1}H{right:.0}"),
            (_, false) => write!(line, "L{right:.0} {y:.1}"),
        };
        end = right;
    }
    let area = format!("{line}L{end:.0} {HEIGHT}L{begin:.0} {HEIGHT}Z");
    (line, area)
}

/// The axis of time below a picture of some height.
fn time_labels(out: &mut String, span: u64, height: f64) {
    let step = time_step(span);
    for at in (0..=span).step_by(step as usize) {
        let x = across(at, span);
        let _ = write!(out, "<line class=grid x1=\"{x:.2}%\" x2=\"{x:.2}%\" y1=0 y2={:.0} />", height + 4.0);
        let label = if at == 0 { "0".into() } else { time(at) };
        let _ = write!(out, "<text class=x x=\"{x:.2}%\" y={:.0}>{label}</text>", height + 18.0);
    }
}

/// A row of the time line: its name, the marks' class and shape, and for each its time and what it is.
struct Row {
    name: &'static str,
    class: &'static str,
    shape: &'static str,
    marks: Vec<(u64, String)>,
}

/// Connections, violations and the end over time.
pub fn timeline(report: &Report) -> String {
    const ROW: f64 = 44.0;
    let span = span(report);
    let connections = |allowed: bool| {
        let some = report.connections.iter().filter(|c| c.allowed == allowed);
        some.map(|c| (c.at_us, super::place(&c.host, c.port))).collect::<Vec<_>>()
    };
    let violations = report.violations.iter().map(|v| (v.at_us, format!("{} {} by {}", v.kind, v.what, v.program)));
    // A disc, a cross, a diamond: to be told apart without their colours.
    let (disc, cross, diamond) =
        ("M-5 0a5 5 0 1 0 10 0a5 5 0 1 0 -10 0Z", "M-5 -5L5 5M-5 5L5 -5", "M0 -6L6 0L0 6L-6 0Z");
    let rows = [
        Row { name: "Connections", class: "good", shape: disc, marks: connections(true) },
        Row { name: "Connections denied", class: "bad", shape: cross, marks: connections(false) },
        Row { name: "Violations", class: "warn", shape: diamond, marks: violations.collect() },
    ];
    let rows: Vec<Row> = rows.into_iter().filter(|row| !row.marks.is_empty()).collect();
    let height = ROW * rows.len().max(1) as f64;
    let mut out = String::from("<figure class=chart><figcaption>What happened when</figcaption>");
    let _ = write!(out, "<svg role=img aria-label=\"Time line\" width=\"100%\" height={height}>");
    let _ = write!(out, "<line class=grid x2=\"100%\" y1={height} y2={height} />");
    time_labels(&mut out, span, height);
    for (n, row) in rows.iter().enumerate() {
        let top = ROW * n as f64;
        let _ = write!(out, "<text class=row x=4 y={:.0}>{} ({})</text>", top + 15.0, row.name, row.marks.len());
        let _ = write!(out, "<line class=rail x2=\"100%\" y1={0:.0} y2={0:.0} />", top + 29.0);
        marks(&mut out, row, span, top + 29.0);
    }
    let x = across(report.wall_us, span);
    let _ = write!(out, "<line class=end x1=\"{x:.2}%\" x2=\"{x:.2}%\" y1=0 y2={height} />");
    if rows.is_empty() {
        let _ = write!(out, "<text class=row x=4 y=26>No connections, no violations</text>");
    }
    let _ = write!(out, "<text class=end x=\"{x:.2}%\" dx=-5 y=15>end</text>");
    out + "</svg></figure>"
}

/// A row's marks; those that would lie on one another are one mark.
fn marks(out: &mut String, row: &Row, span: u64, y: f64) {
    let mut places = std::collections::BTreeMap::new();
    for (at, what) in &row.marks {
        let place = (across(*at, span) * MARKS as f64 / 100.0) as usize;
        places.entry(place).or_insert((*at, what, 0)).2 += 1;
    }
    for (at, what, count) in places.into_values() {
        let more = if count > 1 { format!(" and {} more", count - 1) } else { String::new() };
        let _ = write!(
            out,
            "<svg x=\"{:.2}%\" y={y:.0} overflow=visible class={}><path d=\"{}\"><title>{}: {}{more}</title></path></svg>",
            across(at, span),
            row.class,
            row.shape,
            time(at),
            text(what),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::show::samples::{busy, connection, quiet};

    #[test]
    fn a_long_run_is_thinned_and_keeps_its_peaks() {
        let mut points: Vec<Point> = (0..100_000).map(|n| (n, f64::from(n as u32 % 10))).collect();
        points[54_321].1 = 999.0;
        points[70_001].1 = -1.0;
        let kept = thin(&points);
        assert!(kept.len() <= POINTS && kept.len() > POINTS / 2, "{}", kept.len());
        assert!(kept.contains(&points[54_321]) && kept.contains(&points[70_001]));
        assert_eq!((kept[0], kept[kept.len() - 1]), (points[0], points[99_999]));
        assert!(kept.is_sorted_by(|a, b| a.0 < b.0));
        for n in [600, 601, 602, 1199, 1797] {
            assert!(thin(&points[..n]).len() <= POINTS, "{n}");
        }
    }

    #[test]
    fn cpu_is_the_share_between_two_samples() {
        let sample = |at_us, cpu_us| Sample { at_us, cpu_us, ..Sample::default() };
        let samples = [sample(100, 50), sample(100, 60), sample(200, 250), sample(300, 240)];
        assert_eq!(cpu_points(&samples), [(100, 50.0), (200, 200.0), (300, 0.0)]);
        assert_eq!(cpu_points(&[sample(0, 0)]), []);
    }

    #[test]
    fn labels_are_round_and_few() {
        for span in [1, 3, 999, 2_350, 4_731_000, 59_000_000, 61_000_000, 3_599_000_000, 86_400_000_000, u64::MAX / 2] {
            let labels = span / time_step(span);
            assert!(labels <= 5, "{span}: {labels}");
        }
        assert_eq!([4_731_000, 100_000_000, 900].map(time_step), [1_000_000, 30_000_000, 200]);
        assert_eq!([1.0, 1.1, 23.0, 99.0].map(nice), [1.0, 2.0, 50.0, 100.0]);
    }

    #[test]
    fn any_number_of_samples_makes_a_picture() {
        let mut report = quiet();
        assert!(
            memory(&report).contains("before it was looked at") && cpu(&report).contains("before it was looked at")
        );
        report.samples = vec![Sample::default()];
        assert!(memory(&report).contains("<circle class=dot cx=\"0.00%\" cy=160.0"), "{}", memory(&report));
        report.samples = (0..100_000).map(|n| Sample { at_us: n * 50, memory: n << 9, cpu_us: n, pids: 1 }).collect();
        report.samples.push(Sample { at_us: u64::MAX, memory: u64::MAX, cpu_us: u64::MAX, pids: u64::MAX });
        for picture in [memory(&report), cpu(&report)] {
            assert!(picture.len() < 30_000 && !picture.contains("NaN") && !picture.contains("inf"), "{picture}");
        }
    }

    #[test]
    fn a_limit_is_drawn_where_it_can_be_seen() {
        assert!(memory(&busy()).contains("<line class=limit"));
        let mut far = busy();
        far.limits[0].value = "64G".into();
        let far = memory(&far);
        assert!(!far.contains("<line class=limit") && far.contains("limit 64G (far above)"));
    }

    #[test]
    fn the_time_line_has_each_row_that_is_not_empty() {
        let line = timeline(&busy());
        for part in ["Connections (2)", "Connections denied (3)", "Violations (4)", "210 ms: pypi.org:443", ">end<"] {
            assert!(line.contains(part), "{part}: {line}");
        }
        assert!(timeline(&quiet()).contains("No connections"));
        let mut crowd = quiet();
        crowd.wall_us = 1_000_000;
        crowd.connections = (0..50_000).map(|n| connection(n / 50, "a.example", 1, true, "")).collect();
        assert!(timeline(&crowd).matches("<title>").count() <= MARKS + 1);
    }
}
