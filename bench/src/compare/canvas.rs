//! A drawing in pixels, and axes that say where on it a figure is.

use super::server::Server;
use crate::load::Failed;
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

/// A place in pixels, from the upper left corner.
pub(super) type Point = (i32, i32);

pub(super) const INK: RGBColor = RGBColor(0x22, 0x22, 0x22);
pub(super) const PALE_INK: RGBColor = RGBColor(0x66, 0x66, 0x66);
pub(super) const GRID: RGBColor = RGBColor(0xe2, 0xe2, 0xe2);
/// Text of a panel, of its title, of the whole drawing's title; heights in pixels.
pub(super) const SMALL: f64 = 12.0;
pub(super) const NORMAL: f64 = 13.0;
pub(super) const LARGE: f64 = 19.0;
/// plotters draws a font smaller than it is asked for, by this.
const FONT_FACTOR: f64 = 1.24;

/// The same everywhere; to be told apart by the colour-blind too.
pub(super) fn colour(server: Server) -> RGBColor {
    match server {
        Server::NullTonic => RGBColor(0x77, 0x77, 0x77),
        Server::NullH2 => RGBColor(0xb4, 0xb4, 0xb4),
        Server::Coffer => RGBColor(0xd5, 0x5e, 0x00),
        Server::Etcd => RGBColor(0x00, 0x72, 0xb2),
    }
}

/// Where a text stands from its point.
#[derive(Clone, Copy)]
pub(super) enum Side {
    Left,
    Middle,
    Right,
}

pub(super) struct Canvas<'a> {
    area: DrawingArea<SVGBackend<'a>, Shift>,
}

impl<'a> Canvas<'a> {
    /// An empty one, white; what is drawn goes to `out` when it is finished.
    pub(super) fn new(out: &'a mut String, size: (i32, i32)) -> Result<Canvas<'a>, Failed> {
        let size = (u32::try_from(size.0)?, u32::try_from(size.1)?);
        let area = SVGBackend::with_string(out, size).into_drawing_area();
        area.fill(&WHITE)?;
        Ok(Canvas { area })
    }

    pub(super) fn text(
        &self,
        text: &str,
        at: Point,
        height: f64,
        side: Side,
        colour: RGBColor,
    ) -> Result<(), Failed> {
        let side = match side {
            Side::Left => HPos::Left,
            Side::Middle => HPos::Center,
            Side::Right => HPos::Right,
        };
        let font = ("sans-serif", height * FONT_FACTOR).into_font();
        let style = TextStyle::from(font).color(&colour).pos(Pos::new(side, VPos::Center));
        Ok(self.area.draw_text(text, &style, at)?)
    }

    pub(super) fn bold(&self, text: &str, at: Point, height: f64) -> Result<(), Failed> {
        let font = ("sans-serif", height * FONT_FACTOR, FontStyle::Bold).into_font();
        let style = TextStyle::from(font).color(&INK).pos(Pos::new(HPos::Left, VPos::Center));
        Ok(self.area.draw_text(text, &style, at)?)
    }

    pub(super) fn rectangle(&self, from: Point, to: Point, colour: RGBColor) -> Result<(), Failed> {
        Ok(self.area.draw(&Rectangle::new([from, to], colour.filled()))?)
    }

    /// A line through points, `strength` of 1 or paler.
    pub(super) fn line(
        &self,
        points: &[Point],
        colour: RGBColor,
        width: u32,
        strength: f64,
    ) -> Result<(), Failed> {
        let style = ShapeStyle { color: colour.mix(strength), filled: false, stroke_width: width };
        Ok(self.area.draw(&PathElement::new(points.to_vec(), style))?)
    }

    pub(super) fn dot(&self, at: Point, radius: i32, colour: RGBColor) -> Result<(), Failed> {
        Ok(self.area.draw(&Circle::new(at, radius, colour.filled()))?)
    }

    /// Title, a line below it, and which colour is whose.
    pub(super) fn heading(&self, title: &str, below: &str, servers: &[Server]) -> Result<(), Failed> {
        self.bold(title, (20, 24), LARGE)?;
        self.text(below, (20, 48), NORMAL, Side::Left, PALE_INK)?;
        let mut x = 20;
        for &server in servers {
            self.rectangle((x, 66), (x + 14, 80), colour(server))?;
            self.text(server.title(), (x + 20, 73), NORMAL, Side::Left, INK)?;
            x += 50 + width_of(server.title(), NORMAL);
        }
        Ok(())
    }

    /// To the string.
    pub(super) fn finish(self) -> Result<(), Failed> {
        Ok(self.area.present()?)
    }
}

/// Room for a heading.
pub(super) const HEADING: i32 = 96;

/// About as wide as a text is drawn.
pub(super) fn width_of(text: &str, height: f64) -> i32 {
    (text.chars().count() as f64 * height * 0.56) as i32
}

/// Figures along a line of pixels.
#[derive(Clone, Debug)]
pub(super) struct Axis {
    log: bool,
    low: f64,
    high: f64,
    from: i32,
    to: i32,
}

impl Axis {
    /// From 0, or from the lowest figure if that is below, evenly.
    pub(super) fn even(figures: impl IntoIterator<Item = f64>, (from, to): (i32, i32)) -> Axis {
        let (low, high) = ends(figures.into_iter().chain([0.0]));
        let high = if high > low { high } else { low + 1.0 };
        Axis { log: false, low, high, from, to }
    }

    /// By factors, with round ends. Figures that are not above 0 have no place on it.
    pub(super) fn log(figures: impl IntoIterator<Item = f64>, (from, to): (i32, i32)) -> Axis {
        let (low, high) = ends(figures.into_iter().filter(|figure| *figure > 0.0));
        let (low, high) = if low.is_finite() { (low, high) } else { (1.0, 10.0) };
        let (low, mut high) = (round_down(low), round_up(high));
        if high <= low {
            high = low * 10.0;
        }
        Axis { log: true, low, high, from, to }
    }

    /// By factors, from the lowest figure to the highest and not beyond.
    pub(super) fn log_within(figures: impl IntoIterator<Item = f64>, pixels: (i32, i32)) -> Axis {
        let figures: Vec<f64> = figures.into_iter().filter(|figure| *figure > 0.0).collect();
        let (low, high) = ends(figures.iter().copied());
        let axis = Axis::log(figures, pixels);
        if high > low { Axis { low, high, ..axis } } else { axis }
    }

    /// The pixel it begins at.
    pub(super) fn from(&self) -> i32 {
        self.from
    }

    /// The pixel it ends at.
    pub(super) fn to(&self) -> i32 {
        self.to
    }

    /// The pixel of a figure; the nearest end for one beyond.
    pub(super) fn at(&self, figure: f64) -> i32 {
        let share = if self.log {
            (figure.max(self.low) / self.low).ln() / (self.high / self.low).ln()
        } else {
            (figure - self.low) / (self.high - self.low)
        };
        self.from + (share.clamp(0.0, 1.0) * f64::from(self.to - self.from)).round() as i32
    }

    /// Round figures to mark, about `most` at the most.
    pub(super) fn marks(&self, most: usize) -> Vec<f64> {
        if self.log { self.log_marks(most) } else { self.even_marks(most) }
    }

    fn even_marks(&self, most: usize) -> Vec<f64> {
        let step = round_up((self.high - self.low) / most.max(1) as f64);
        let first = (self.low / step).ceil() as i64;
        (first..)
            .map(|number| number as f64 * step)
            .take_while(|mark| *mark <= self.high * 1.000_001)
            .collect()
    }

    fn log_marks(&self, most: usize) -> Vec<f64> {
        let decades = (self.low.log10().floor() as i32)..=(self.high.log10().ceil() as i32);
        let within = |mark: &f64| *mark >= self.low * 0.999_999 && *mark <= self.high * 1.000_001;
        let marks = |multiples: &'static [f64]| -> Vec<f64> {
            let each =
                decades.clone().flat_map(|decade| multiples.iter().map(move |m| m * 10f64.powi(decade)));
            each.filter(within).collect()
        };
        let fine = marks(&[1.0, 2.0, 5.0]);
        if fine.len() <= most { fine } else { marks(&[1.0]) }
    }
}

fn ends(figures: impl Iterator<Item = f64>) -> (f64, f64) {
    figures
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), figure| (low.min(figure), high.max(figure)))
}

/// The next of 1, 2, 5, 10 and so on that is not below.
fn round_up(figure: f64) -> f64 {
    let decade = 10f64.powf(figure.log10().floor());
    let multiple = [1.0, 2.0, 5.0].into_iter().find(|multiple| multiple * decade >= figure * 0.999_999);
    multiple.unwrap_or(10.0) * decade
}

/// The last of them that is not above.
fn round_down(figure: f64) -> f64 {
    let decade = 10f64.powf(figure.log10().floor());
    let multiple = [5.0, 2.0, 1.0].into_iter().find(|multiple| multiple * decade <= figure * 1.000_001);
    multiple.unwrap_or(1.0) * decade
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_has_its_ends_at_its_pixels() {
        let axis = Axis::log([70.0, 3_000.0], (400, 100));
        assert_eq!((axis.at(50.0), axis.at(5_000.0), axis.at(1.0)), (400, 100, 400));
        assert!((axis.at(500.0) - 250).abs() <= 1);
        assert_eq!(axis.marks(9), [50.0, 100.0, 200.0, 500.0, 1_000.0, 2_000.0, 5_000.0]);
        assert_eq!(axis.marks(3), [100.0, 1_000.0]);
        let axis = Axis::even([3.0, 9.0], (0, 90));
        assert_eq!((axis.at(0.0), axis.at(9.0), axis.at(4.5)), (0, 90, 45));
        assert_eq!(axis.marks(5), [0.0, 2.0, 4.0, 6.0, 8.0]);
    }

    #[test]
    fn an_axis_without_figures_is_still_one() {
        assert_eq!(Axis::log([], (0, 10)).at(0.0), 0);
        assert_eq!(Axis::even([], (0, 10)).at(0.0), 0);
        assert_eq!(Axis::log([7.0, 7.0], (0, 10)).marks(3).len(), 2);
        assert_eq!(Axis::log_within([4.0], (0, 10)).at(f64::MAX), 10);
    }

    #[test]
    fn round_figures_are_round() {
        assert_eq!([1.0, 1.1, 2.0, 3.0, 6.0].map(round_up), [1.0, 2.0, 2.0, 5.0, 10.0]);
        assert_eq!([1.0, 1.9, 2.0, 3.0, 9.0].map(round_down), [1.0, 1.0, 2.0, 2.0, 5.0]);
    }
}
