//! One chart as SVG: lines or bars, a title and two named axes.

use std::error::Error;

use plotters::coord::Shift;
use plotters::coord::ranged1d::{AsRangedCoord, DefaultFormatting, KeyPointHint, Ranged, ValueFormatter};
use plotters::prelude::*;

const SIZE: (u32, u32) = (960, 540);
const FONT: &str = "sans-serif";

/// Up to so many lines have colours of their own and a legend; more are one cloud.
const COLOURS: [RGBColor; 6] = [
    RGBColor(0x1f, 0x5f, 0xa8),
    RGBColor(0xd9, 0x5f, 0x0e),
    RGBColor(0x2c, 0x8a, 0x4b),
    RGBColor(0x7b, 0x3f, 0x98),
    RGBColor(0xb8, 0x2e, 0x4a),
    RGBColor(0x5a, 0x5a, 0x5a),
];

pub(super) struct Chart {
    pub(super) title: String,
    pub(super) x: Axis,
    pub(super) y: Axis,
    /// Bars at whole x, instead of lines.
    pub(super) bars: bool,
    pub(super) lines: Vec<Line>,
}

pub(super) struct Axis {
    /// What it shows, with its unit.
    pub(super) name: String,
    /// How many of the points' unit one of the axis' is.
    pub(super) scale: f64,
    pub(super) log: bool,
    /// What it covers at least, in its own unit.
    pub(super) range: Option<(f64, f64)>,
}

pub(super) struct Line {
    pub(super) name: String,
    pub(super) points: Vec<(f64, f64)>,
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), Box<dyn Error>>;

/// The picture.
pub(super) fn svg(chart: &Chart) -> Result<String, Box<dyn Error>> {
    let mut picture = String::new();
    {
        let area = SVGBackend::with_string(&mut picture, SIZE).into_drawing_area();
        area.fill(&WHITE)?;
        let lines = scaled(chart);
        let (low, high) = reach(&chart.x, lines.iter().flat_map(|line| line.points.iter().map(|point| point.0)));
        let y = padded(reach(&chart.y, lines.iter().flat_map(|line| line.points.iter().map(|point| point.1))));
        if chart.bars {
            plot(&area, chart, &lines, low - 0.5..high + 0.5, y, (high - low) as usize + 1)?;
        } else if chart.x.log {
            plot(&area, chart, &lines, Log { low: low / 1.1, high: high * 1.1 }, y, 12)?;
        } else {
            plot(&area, chart, &lines, low..high, y, 12)?;
        }
        area.present()?;
    }
    Ok(picture)
}

/// The points in the axes' units; what a logarithm cannot show is at its smallest step.
fn scaled(chart: &Chart) -> Vec<Line> {
    let least = 1.0 / chart.x.scale;
    let x = |x: f64| if chart.x.log { (x / chart.x.scale).max(least) } else { x / chart.x.scale };
    let point = |(from, to): &(f64, f64)| (x(*from), to / chart.y.scale);
    let line = |line: &Line| Line { name: line.name.clone(), points: line.points.iter().map(point).collect() };
    chart.lines.iter().map(line).collect()
}

/// From the least to the most value, never nothing.
fn reach(axis: &Axis, values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (start, end) = axis.range.unwrap_or((f64::INFINITY, f64::NEG_INFINITY));
    let (low, high) = values.fold((start, end), |(low, high), value| (low.min(value), high.max(value)));
    if low < high { (low, high) } else { (low, low + 1.0) }
}

/// Some room above the highest value.
fn padded((low, high): (f64, f64)) -> std::ops::Range<f64> {
    low..high + (high - low) * 0.04
}

fn plot<X>(
    area: &Area<'_>,
    chart: &Chart,
    lines: &[Line],
    x: impl AsRangedCoord<CoordDescType = X, Value = f64>,
    y: std::ops::Range<f64>,
    x_labels: usize,
) -> Drawn
where
    X: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    let mut context = ChartBuilder::on(area)
        .caption(&chart.title, (FONT, 22))
        .margin(16)
        .x_label_area_size(52)
        .y_label_area_size(72)
        .build_cartesian_2d(x, y)?;
    context
        .configure_mesh()
        .x_desc(&chart.x.name)
        .y_desc(&chart.y.name)
        .axis_desc_style((FONT, 16))
        .label_style((FONT, 14))
        .x_labels(x_labels.min(24))
        .x_label_formatter(&|value| if chart.bars { whole(*value) } else { number(*value) })
        .y_label_formatter(&|value| number(*value))
        .bold_line_style(BLACK.mix(0.12))
        .light_line_style(TRANSPARENT)
        .draw()?;
    if chart.bars {
        for (x, y) in lines.iter().flat_map(|line| &line.points) {
            context.draw_series([Rectangle::new([(x - 0.4, 0.0), (x + 0.4, *y)], COLOURS[0].filled())])?;
        }
        return Ok(());
    }
    let cloud = lines.len() > COLOURS.len();
    for (index, line) in lines.iter().enumerate() {
        let colour = if cloud { COLOURS[0].mix(0.4) } else { COLOURS[index].mix(1.0) };
        let style = colour.stroke_width(if cloud { 1 } else { 2 });
        let series = context.draw_series(LineSeries::new(line.points.iter().copied(), style))?;
        if !cloud && lines.len() > 1 {
            series.label(&line.name).legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], style));
        }
        if let [point] = line.points.as_slice() {
            context.draw_series([Circle::new(*point, 3, style.filled())])?;
        }
    }
    if !cloud && lines.len() > 1 {
        context
            .configure_series_labels()
            .position(SeriesLabelPosition::LowerRight)
            .label_font((FONT, 14))
            .background_style(WHITE.mix(0.85))
            .border_style(BLACK.mix(0.3))
            .draw()?;
    }
    Ok(())
}

/// A logarithmic axis. That of plotters leaves decades without a label.
#[derive(Clone)]
struct Log {
    /// More than 0.
    low: f64,
    high: f64,
}

impl Ranged for Log {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (from, to): (i32, i32)) -> i32 {
        let part = (value / self.low).ln() / (self.high / self.low).ln();
        from + (part * f64::from(to - from)).round() as i32
    }

    /// 1, 2 and 5 of each decade, or only the 1 where that is too much.
    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        let decades = self.low.log10().floor() as i32..=self.high.log10().ceil() as i32;
        let points = |steps: &[f64]| -> Vec<f64> {
            let all = decades.clone().flat_map(|decade| steps.iter().map(move |step| step * 10_f64.powi(decade)));
            all.filter(|point| (self.low..=self.high).contains(point)).collect()
        };
        let all = points(&[1.0, 2.0, 5.0]);
        if all.len() <= hint.max_num_points() { all } else { points(&[1.0]) }
    }

    fn range(&self) -> std::ops::Range<f64> {
        self.low..self.high
    }
}

/// At most three decimals, none that says nothing.
fn number(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Bars stand at whole numbers: between them is nothing to name.
fn whole(value: f64) -> String {
    if (value - value.round()).abs() < 0.01 { format!("{}", value.round()) } else { String::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_logarithmic_axis_names_one_two_and_five_of_each_decade() {
        let axis = Log { low: 18.0, high: 450.0 };
        assert_eq!(axis.key_points(12), [20.0, 50.0, 100.0, 200.0]);
        assert_eq!([18.0, 90.0, 450.0].map(|value| axis.map(&value, (0, 200))), [0, 100, 200]);
        let wide = Log { low: 0.001, high: 100_000.0 };
        assert_eq!(wide.key_points(12).len(), 9, "a label for each decade");
    }

    #[test]
    fn labels_have_no_zeros_that_say_nothing() {
        assert_eq!([0.0, 12.5, 100.0, 0.125].map(number), ["0", "12.5", "100", "0.125"]);
        assert_eq!([3.0, 3.5].map(whole), ["3", ""]);
    }
}
