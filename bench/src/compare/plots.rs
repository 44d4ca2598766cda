//! The drawings of a report. All are panels of one kind: bars, one for each server, or curves.
//!
//! | file | standard run | scale run |
//! |---|---|---|
//! | throughput.svg | bars for each work | curves over what grows |
//! | latency.svg | curves over the quantiles, for each work | p50 and p99 over what grows |
//! | cpu.svg | bars for each work | curves over what grows |
//! | over_time.svg | the longest request of each second, for each server | - |

use super::canvas::{Axis, Canvas, GRID, HEADING, INK, NORMAL, PALE_INK, Point, SMALL, Side, colour};
use super::data::{Data, StepInfo};
use super::figures::{self, Measure};
use super::report::{KINDS, QUANTILES, longest_by_second};
use super::server::Server;
use crate::load::Failed;
use std::path::Path;

/// Panels beside one another.
const COLUMNS: i32 = 4;
/// What a stall's bound is drawn at, in microseconds.
const BOUND_US: f64 = 50_000.0;

/// The files of a report and what they show.
pub(super) fn names(data: &Data) -> Vec<(&'static str, &'static str)> {
    let mut names = vec![("throughput.svg", "Throughput"), ("latency.svg", "Latency"), ("cpu.svg", "CPU")];
    if data.scale.is_none() {
        names.push(("over_time.svg", "Latency over time"));
    }
    names
}

/// Draws all into `directory`.
pub(super) fn write(data: &Data, directory: &Path) -> Result<(), Failed> {
    for (name, _) in names(data) {
        std::fs::write(directory.join(name), draw(data, name)?)?;
    }
    Ok(())
}

fn draw(data: &Data, name: &str) -> Result<String, Failed> {
    let rate = (
        "Throughput",
        "operations a second; a line goes from the lowest round to the highest, where there are several",
    );
    let cpu = ("CPU of the server", "microseconds for one operation; less is better");
    match (name, &data.scale) {
        ("throughput.svg", None) => bars(data, rate, Measure::Rate),
        ("cpu.svg", None) => bars(data, cpu, Measure::Cpu),
        ("latency.svg", None) => quantiles(data),
        ("over_time.svg", None) => over_time(data),
        ("throughput.svg", Some(axis)) => {
            scaled(data, (rate.0, "operations a second"), axis, rate_curves(data))
        }
        ("cpu.svg", Some(axis)) => scaled(data, cpu, axis, cpu_curves(data)),
        ("latency.svg", Some(axis)) => {
            scaled(data, ("Latency", "p50, and p99 as a paler line above it"), axis, latency_curves(data))
        }
        _ => Err(format!("no drawing is called {name}").into()),
    }
}

/// The panels of a drawing: where each begins, and how large all are together.
struct Panels {
    size: (i32, i32),
    columns: i32,
}

impl Panels {
    fn origin(&self, number: usize) -> Point {
        let number = number as i32;
        (20 + number % self.columns * self.size.0, HEADING + number / self.columns * self.size.1)
    }

    fn whole(&self, count: usize) -> (i32, i32) {
        let rows = (count as i32 + self.columns - 1) / self.columns;
        (40 + self.columns * self.size.0, HEADING + 20 + rows.max(1) * self.size.1)
    }
}

fn bars(data: &Data, (title, below): (&str, &str), measure: Measure) -> Result<String, Failed> {
    let servers = data.servers();
    let panels = Panels { size: (290, 46 + 21 * servers.len() as i32), columns: COLUMNS };
    let mut out = String::new();
    let canvas = Canvas::new(&mut out, panels.whole(data.works().count()))?;
    canvas.heading(title, below, &servers)?;
    for (number, step) in data.works().enumerate() {
        bar_panel(&canvas, data, panels.origin(number), step, measure)?;
    }
    canvas.finish()?;
    Ok(out)
}

fn bar_panel(
    canvas: &Canvas<'_>,
    data: &Data,
    (left, top): Point,
    step: &StepInfo,
    measure: Measure,
) -> Result<(), Failed> {
    canvas.bold(&cut(&step.title, 40), (left, top + 10), SMALL)?;
    let spreads: Vec<_> = data
        .servers()
        .into_iter()
        .filter_map(|server| Some((server, data.spread(server, &step.name, &measure)?)))
        .collect();
    let axis = Axis::even(spreads.iter().map(|(_, spread)| spread.high), (left, left + 190));
    for (number, (server, spread)) in spreads.into_iter().enumerate() {
        let y = top + 24 + 21 * number as i32;
        canvas.rectangle((left, y), (axis.at(spread.median).max(left + 1), y + 15), colour(server))?;
        if spread.low < spread.high {
            canvas.line(&[(axis.at(spread.low), y + 7), (axis.at(spread.high), y + 7)], INK, 1, 1.0)?;
        }
        let text = figures::short(spread.median);
        canvas.text(&text, (axis.at(spread.high) + 6, y + 8), SMALL, Side::Left, INK)?;
    }
    Ok(())
}

/// Curves with their points, in one panel.
struct Curve {
    server: Server,
    points: Vec<(f64, f64)>,
    /// Drawn pale and without dots.
    pale: bool,
}

/// A panel with axes.
struct Frame<'a> {
    title: &'a str,
    x: Axis,
    y: Axis,
    x_marks: Vec<(f64, String)>,
    y_text: fn(f64) -> String,
    curves: Vec<Curve>,
}

impl Frame<'_> {
    fn draw(&self, canvas: &Canvas<'_>, (left, top): Point) -> Result<(), Failed> {
        canvas.bold(&cut(self.title, 40), (left, top + 10), SMALL)?;
        let ((x0, x1), (y1, y0)) = ((self.x.from(), self.x.to()), (self.y.from(), self.y.to()));
        for mark in self.y.marks(8) {
            let y = self.y.at(mark);
            canvas.line(&[(x0, y), (x1, y)], GRID, 1, 1.0)?;
            canvas.text(&(self.y_text)(mark), (x0 - 6, y), SMALL - 1.0, Side::Right, PALE_INK)?;
        }
        for (mark, text) in &self.x_marks {
            let x = self.x.at(*mark);
            canvas.line(&[(x, y0), (x, y1)], GRID, 1, 1.0)?;
            canvas.text(text, (x, y1 + 12), SMALL - 1.0, Side::Middle, PALE_INK)?;
        }
        canvas.line(&[(x0, y0), (x0, y1), (x1, y1)], PALE_INK, 1, 1.0)?;
        for curve in &self.curves {
            let points: Vec<Point> =
                curve.points.iter().map(|(x, y)| (self.x.at(*x), self.y.at(*y))).collect();
            canvas.line(&points, colour(curve.server), 2, if curve.pale { 0.45 } else { 1.0 })?;
            if !curve.pale {
                for point in points {
                    canvas.dot(point, 3, colour(curve.server))?;
                }
            }
        }
        Ok(())
    }
}

/// The pixels of a panel's axes, of a panel at `origin`: left to right, and bottom to top.
fn pixels((left, top): Point, (width, height): (i32, i32)) -> ((i32, i32), (i32, i32)) {
    ((left + 52, left + width - 24), (top + height - 40, top + 26))
}

fn quantiles(data: &Data) -> Result<String, Failed> {
    let panels = Panels { size: (290, 220), columns: COLUMNS };
    let charts: Vec<(&StepInfo, &'static str)> = data.works().flat_map(charts_of).collect();
    let mut out = String::new();
    let canvas = Canvas::new(&mut out, panels.whole(charts.len()))?;
    let below =
        "from a request's due time to its answer, or from a put to its event; each axis has its own scale";
    canvas.heading("Latency", below, &data.servers())?;
    for (number, (step, kind)) in charts.into_iter().enumerate() {
        let origin = panels.origin(number);
        let curves = quantile_curves(data, step, kind);
        let (across, up) = pixels(origin, panels.size);
        let figures = curves.iter().flat_map(|curve| curve.points.iter().map(|point| point.1));
        let title =
            if step.latencies.len() > 1 { format!("{}: {kind}s", step.title) } else { step.title.clone() };
        let frame = Frame {
            title: &title,
            x: Axis::even([3.0], across),
            y: Axis::log(figures.collect::<Vec<_>>(), up),
            x_marks: (0u32..).map(f64::from).zip(QUANTILES.map(str::to_owned)).collect(),
            y_text: figures::time,
            curves,
        };
        frame.draw(&canvas, origin)?;
    }
    canvas.finish()?;
    Ok(out)
}

fn charts_of(step: &StepInfo) -> impl Iterator<Item = (&StepInfo, &'static str)> {
    let has = |kind: &str| step.latencies.iter().any(|has| has == kind);
    KINDS.into_iter().filter(move |kind| has(kind)).map(move |kind| (step, kind))
}

fn quantile_curves(data: &Data, step: &StepInfo, kind: &'static str) -> Vec<Curve> {
    let of = |server: Server| {
        let point = |(number, quantile): (usize, &'static str)| {
            let spread = data.spread(server, &step.name, &Measure::Latency(kind, quantile))?;
            Some((number as f64, spread.median.max(1.0)))
        };
        let points: Vec<_> = QUANTILES.into_iter().enumerate().filter_map(point).collect();
        (!points.is_empty()).then_some(Curve { server, points, pale: false })
    };
    data.servers().into_iter().filter_map(of).collect()
}

/// One panel above the other, so that what happened at the same second stands at the same place.
fn over_time(data: &Data) -> Result<String, Failed> {
    let servers: Vec<Server> =
        data.servers().into_iter().filter(|server| data.run(*server, "open", 1).is_some()).collect();
    let panels = Panels { size: (1_160, 230), columns: 1 };
    let runs: Vec<Vec<f64>> = servers.iter().flat_map(|server| open_runs(data, *server)).collect();
    let all: Vec<f64> = runs.iter().flatten().copied().chain([1_000.0, 100_000.0]).collect();
    let seconds = runs.iter().map(Vec::len).max().unwrap_or(1);
    let mut out = String::new();
    let canvas = Canvas::new(&mut out, panels.whole(servers.len()))?;
    let below = "the longest request of those due in each second, in open loop; a curve for each round; \
                 bound of a stall: 50 ms";
    canvas.heading("Latency over time", below, &servers)?;
    for (number, &server) in servers.iter().enumerate() {
        let origin = panels.origin(number);
        let (across, up) = pixels(origin, panels.size);
        let curve = |(round, run): (usize, Vec<f64>)| Curve {
            server,
            points: run.into_iter().enumerate().map(|(second, us)| (second as f64, us.max(1.0))).collect(),
            pale: round > 0,
        };
        let x = Axis::even([(seconds.max(2) - 1) as f64], across);
        let frame = Frame {
            title: server.title(),
            x_marks: x
                .marks(15)
                .into_iter()
                .filter(|mark| mark.fract() == 0.0)
                .map(|mark| (mark, format!("{} s", figures::count(mark))))
                .collect(),
            x,
            y: Axis::log(all.iter().copied(), up),
            y_text: figures::time,
            curves: open_runs(data, server).into_iter().enumerate().map(curve).collect(),
        };
        let bound = frame.y.at(BOUND_US);
        frame.draw(&canvas, origin)?;
        canvas.line(&[(across.0, bound), (across.1, bound)], INK, 1, 0.6)?;
        canvas.text("50 ms", (across.1 + 4, bound), SMALL - 1.0, Side::Left, INK)?;
    }
    canvas.finish()?;
    Ok(out)
}

/// The longest request of each second, for each round of the open loop.
fn open_runs(data: &Data, server: Server) -> Vec<Vec<f64>> {
    let run = |round| Some(longest_by_second(&data.run(server, "open", round)?.figures));
    (1..=data.rounds).filter_map(run).collect()
}

/// The curves of one group of a scale run.
type Group = (String, fn(f64) -> String, Vec<Curve>);

fn curves(data: &Data, group: &str, measure: Measure, pale: bool) -> Vec<Curve> {
    let of = |server: Server| {
        let steps = data.works().filter(|step| step.group == group);
        let point =
            |step: &StepInfo| Some((step.x? as f64, data.spread(server, &step.name, &measure)?.median));
        let points: Vec<_> = steps.filter_map(point).collect();
        (!points.is_empty()).then_some(Curve { server, points, pale })
    };
    data.servers().into_iter().filter_map(of).collect()
}

fn rate_curves(data: &Data) -> Vec<Group> {
    let group = |group: &str| -> Group {
        (group.to_owned(), |rate| size(rate, false), curves(data, group, Measure::Rate, false))
    };
    data.groups().into_iter().map(group).collect()
}

fn cpu_curves(data: &Data) -> Vec<Group> {
    let group = |group: &str| -> Group {
        (group.to_owned(), figures::time, curves(data, group, Measure::Cpu, false))
    };
    data.groups().into_iter().map(group).collect()
}

fn latency_curves(data: &Data) -> Vec<Group> {
    let group = |group: &str| -> Option<Group> {
        let first = data.works().find(|step| step.group == group)?;
        let kind = charts_of(first).next()?.1;
        let mut all = curves(data, group, Measure::Latency(kind, "p99"), true);
        all.extend(curves(data, group, Measure::Latency(kind, "p50"), false));
        Some((group.to_owned(), figures::time, all))
    };
    data.groups().into_iter().filter_map(group).collect()
}

fn scaled(
    data: &Data,
    (title, below): (&str, &str),
    axis: &str,
    groups: Vec<Group>,
) -> Result<String, Failed> {
    let groups: Vec<Group> = groups.into_iter().filter(|(_, _, curves)| !curves.is_empty()).collect();
    let panels = Panels { size: (400, 300), columns: (groups.len() as i32).clamp(2, 3) };
    let mut out = String::new();
    let canvas = Canvas::new(&mut out, panels.whole(groups.len()))?;
    canvas.heading(&format!("{title}, by {axis}"), below, &data.servers())?;
    for (number, (name, y_text, curves)) in groups.into_iter().enumerate() {
        let origin = panels.origin(number);
        let (across, up) = pixels(origin, panels.size);
        let points: Vec<(f64, f64)> = curves.iter().flat_map(|curve| curve.points.iter().copied()).collect();
        let mut xs: Vec<f64> = points.iter().map(|point| point.0).collect();
        xs.sort_by(f64::total_cmp);
        xs.dedup();
        let frame = Frame {
            title: &name,
            x: Axis::log_within(xs.iter().copied(), across),
            y: Axis::log(points.iter().map(|point| point.1), up),
            x_marks: xs.into_iter().map(|x| (x, size(x, axis.starts_with("bytes")))).collect(),
            y_text,
            curves,
        };
        frame.draw(&canvas, origin)?;
        canvas.text(axis, ((across.0 + across.1) / 2, up.0 + 30), NORMAL, Side::Middle, PALE_INK)?;
    }
    canvas.finish()?;
    Ok(out)
}

/// A size or a rate on an axis: `64`, `10k`, `1M`, `4 KiB`.
fn size(figure: f64, bytes: bool) -> String {
    let whole = |unit: f64, name: &str| {
        (figure >= unit && figure % unit == 0.0).then(|| format!("{:.0}{name}", figure / unit))
    };
    let units = if bytes { [(1_048_576.0, " MiB"), (1_024.0, " KiB")] } else { [(1e6, "M"), (1e4, "0k")] };
    units.into_iter().find_map(|(unit, name)| whole(unit, name)).unwrap_or_else(|| figures::count(figure))
}

/// Not longer than `most`.
fn cut(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let kept: String = text.chars().take(most - 1).collect();
    format!("{}…", kept.trim_end())
}

#[cfg(test)]
mod tests {
    use super::super::data::{Run, example};
    use super::*;

    fn is_whole(svg: &str) -> bool {
        svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>") && !svg.contains("NaN")
    }

    fn hex(server: Server) -> String {
        let plotters::style::RGBColor(red, green, blue) = colour(server);
        format!("#{red:02X}{green:02X}{blue:02X}")
    }

    #[test]
    fn bars_show_every_work_with_its_figure_in_the_servers_colour() {
        let data = example::data();
        let svg = draw(&data, "throughput.svg").unwrap();
        assert!(is_whole(&svg));
        for step in data.works() {
            assert!(svg.contains(&step.title), "{}", step.title);
        }
        for server in Server::ALL {
            assert!(svg.contains(&hex(server)) && svg.contains(server.title()));
        }
        assert!(svg.contains("30,000") && svg.contains("operations a second"));
        // three servers are twice as fast in put, coffer alone in the other two works
        assert_eq!(svg.matches("\n30,000").count() + svg.matches(">30,000").count(), 5);
    }

    #[test]
    fn latencies_have_an_axis_with_units_and_a_curve_for_each_server() {
        let svg = draw(&example::data(), "latency.svg").unwrap();
        assert!(is_whole(&svg));
        for text in QUANTILES.into_iter().chain(["ms", "us"]) {
            assert!(svg.contains(text), "{text}");
        }
        assert_eq!(svg.matches(&format!("stroke=\"{}\"", hex(Server::Etcd))).count(), 3);
    }

    #[test]
    fn stalls_are_visible_over_time() {
        let mut data = example::data();
        let svg = draw(&data, "over_time.svg").unwrap();
        // two rounds
        assert_eq!(svg.matches(&format!("stroke=\"{}\"", hex(Server::Coffer))).count(), 2);
        assert!(is_whole(&svg) && svg.contains("50 ms") && svg.contains("1 s"));
        for run in data.runs.iter_mut().filter(|run| run.step == "open") {
            run.figures["longest_us_by_second"] = serde_json::json!([900, 2_000_000, 900]);
        }
        assert_ne!(draw(&data, "over_time.svg").unwrap(), svg);
    }

    #[test]
    fn a_scale_run_has_curves_over_what_grows() {
        let mut data = Data { scale: Some("clients".to_owned()), runs: Vec::new(), ..example::data() };
        data.steps = [1, 64, 4_096]
            .map(|x| StepInfo {
                x: Some(x),
                group: "put".to_owned(),
                ..example::step(&format!("put/{x}"), &["put"])
            })
            .into();
        for step in &data.steps {
            for round in 1..=2 {
                let figures = example::figures("put", 1e4, 500.0, 12.0);
                data.runs.push(Run { server: Server::Coffer, step: step.name.clone(), round, figures });
            }
        }
        for (name, _) in names(&data) {
            let svg = draw(&data, name).unwrap();
            assert!(is_whole(&svg) && svg.contains("4,096") && svg.contains("clients"), "{name}");
            assert!(svg.contains(&format!("stroke=\"{}\"", hex(Server::Coffer))), "{name}");
        }
        assert_eq!(names(&data).len(), 3);
    }

    #[test]
    fn sizes_are_short() {
        assert_eq!([64.0, 1_024.0, 1_048_576.0].map(|bytes| size(bytes, true)), ["64", "1 KiB", "1 MiB"]);
        assert_eq!(
            [64.0, 4_096.0, 10_000.0, 1e6].map(|keys| size(keys, false)),
            ["64", "4,096", "10k", "1M"]
        );
        assert_eq!(cut("as short as it may be", 12), "as short as…");
    }
}
