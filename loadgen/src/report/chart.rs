//! Line charts as SVG, drawn here so that the page needs nothing to be drawn later.

use std::fmt::Write;

/// Width and height of a chart with its margins, in pixels of the drawing.
const SIZE: (f64, f64) = (860.0, 340.0);
const MARGIN: Margin = Margin { left: 76.0, right: 40.0, top: 14.0, bottom: 46.0 };

struct Margin {
    left: f64,
    right: f64,
    top: f64,
    bottom: f64,
}

/// An axis: its ticks, and the values at its ends, on the scale that is drawn (take logarithms before).
#[derive(Clone, Debug)]
pub(super) struct Axis {
    pub(super) label: String,
    pub(super) from: f64,
    pub(super) to: f64,
    pub(super) ticks: Vec<(f64, String)>,
}

/// A line.
#[derive(Clone, Debug)]
pub(super) struct Series {
    pub(super) name: String,
    /// The class that gives it its colour: `c0` to `c7`.
    pub(super) colour: usize,
    pub(super) dashed: bool,
    /// Where it goes, with what is said of the point.
    pub(super) points: Vec<(f64, f64, String)>,
}

impl Axis {
    /// Powers of ten that hold `low` to `high`; values on it are logarithms.
    pub(super) fn logarithmic(label: &str, low: f64, high: f64, write: impl Fn(f64) -> String) -> Axis {
        let from = low.max(1e-9).log10().floor();
        let to = high.max(low.max(1e-9) * 1.01).log10().ceil().max(from + 1.0);
        let decades = (to - from) as i32;
        let mut ticks = Vec::new();
        for decade in 0..=decades {
            let at = from + f64::from(decade);
            ticks.push((at, write(10_f64.powf(at))));
            if decades <= 3 && decade < decades {
                ticks.extend([2.0_f64, 5.0].map(|part| (at + part.log10(), write(part * 10_f64.powf(at)))));
            }
        }
        Axis { label: label.into(), from, to, ticks }
    }

    /// From 0 to `high`, in round steps.
    pub(super) fn linear(label: &str, high: f64, write: impl Fn(f64) -> String) -> Axis {
        let high = if high > 0.0 { high } else { 1.0 };
        let rough = high / 6.0;
        let power = 10_f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|n| n * power).find(|&step| step >= rough).unwrap_or(rough);
        let steps = (high / step - 1e-9).ceil() as i32;
        let ticks = (0..=steps).map(|n| (f64::from(n) * step, write(f64::from(n) * step))).collect();
        Axis { label: label.into(), from: 0.0, to: high.max(f64::from(steps) * step), ticks }
    }

    fn place(&self, value: f64, low: f64, high: f64) -> f64 {
        let share = (value - self.from) / (self.to - self.from).max(1e-12);
        low + share.clamp(0.0, 1.0) * (high - low)
    }
}

/// The chart, as an `svg` element.
pub(super) fn svg(title: &str, x: &Axis, y: &Axis, series: &[Series]) -> String {
    let mut out = String::new();
    // writing to a string can't fail
    let _ = draw(&mut out, title, x, y, series);
    out
}

fn draw(out: &mut String, title: &str, x: &Axis, y: &Axis, series: &[Series]) -> std::fmt::Result {
    let (width, height) = SIZE;
    let (left, right, top, bottom) = (MARGIN.left, width - MARGIN.right, MARGIN.top, height - MARGIN.bottom);
    writeln!(out, r#"<svg viewBox="0 0 {width} {height}" role="img" aria-label="{}">"#, escape(title))?;
    for (value, text) in &x.ticks {
        let at = x.place(*value, left, right);
        writeln!(out, r#"<line class="grid" x1="{at:.1}" y1="{top}" x2="{at:.1}" y2="{bottom}"/>"#)?;
        writeln!(out, r#"<text x="{at:.1}" y="{:.1}" text-anchor="middle">{}</text>"#, bottom + 17.0, escape(text))?;
    }
    for (value, text) in &y.ticks {
        let at = y.place(*value, bottom, top);
        writeln!(out, r#"<line class="grid" x1="{left}" y1="{at:.1}" x2="{right}" y2="{at:.1}"/>"#)?;
        writeln!(out, r#"<text x="{:.1}" y="{:.1}" text-anchor="end">{}</text>"#, left - 7.0, at + 4.0, escape(text))?;
    }
    let middle = f64::midpoint(left, right);
    writeln!(out, r#"<text x="{middle}" y="{}" text-anchor="middle">{}</text>"#, height - 8.0, escape(&x.label))?;
    let (at, turn) = (f64::midpoint(top, bottom), 14.0);
    let label = escape(&y.label);
    writeln!(out, r#"<text transform="translate({turn} {at}) rotate(-90)" text-anchor="middle">{label}</text>"#)?;
    for line in series {
        draw_line(out, line, |point| (x.place(point.0, left, right), y.place(point.1, bottom, top)))?;
    }
    writeln!(out, "</svg>")
}

fn draw_line(out: &mut String, line: &Series, place: impl Fn(&(f64, f64, String)) -> (f64, f64)) -> std::fmt::Result {
    let (colour, dashed) = (line.colour % 8, if line.dashed { " dashed" } else { "" });
    let name = escape(&line.name);
    writeln!(out, r#"<g class="series c{colour}{dashed}" data-series="{name}">"#)?;
    write!(out, r#"<polyline points=""#)?;
    for point in &line.points {
        let (x, y) = place(point);
        write!(out, "{x:.1},{y:.1} ")?;
    }
    writeln!(out, r#""/>"#)?;
    for point in &line.points {
        let (x, y) = place(point);
        writeln!(out, r#"<circle cx="{x:.1}" cy="{y:.1}" r="4"><title>{name}: {}</title></circle>"#, escape(&point.2))?;
    }
    writeln!(out, "</g>")
}

/// Text for HTML and for attributes.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            char => out.push(char),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_have_round_ticks() {
        let axis = Axis::linear("s", 23.0, |value| format!("{value}"));
        let ticks: Vec<_> = axis.ticks.iter().map(|tick| tick.1.as_str()).collect();
        assert_eq!((ticks, axis.to), (vec!["0", "5", "10", "15", "20", "25"], 25.0));
        let axis = Axis::logarithmic("us", 30.0, 900.0, |value| format!("{value:.0}"));
        let ticks: Vec<_> = axis.ticks.iter().map(|tick| tick.1.as_str()).collect();
        assert_eq!(ticks, ["10", "20", "50", "100", "200", "500", "1000"]);
        assert_eq!((axis.from, axis.to), (1.0, 3.0));
        assert_eq!(Axis::linear("s", 0.0, |_| String::new()).to, 1.0);
    }

    #[test]
    fn points_stay_inside() {
        let (x, y) = (Axis::linear("x", 10.0, |_| String::new()), Axis::linear("y", 10.0, |_| String::new()));
        let points = vec![(0.0, 0.0, "a".into()), (10.0, 99.0, "<b>".into())];
        let series = Series { name: "s".into(), colour: 0, dashed: false, points };
        let drawn = svg("t", &x, &y, &[series]);
        assert!(drawn.contains("76.0,294.0 820.0,14.0"), "{drawn}");
        assert!(drawn.contains("s: &lt;b&gt;") && !drawn.contains("<b>"));
    }
}
