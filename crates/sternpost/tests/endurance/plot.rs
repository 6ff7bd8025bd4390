//! What was measured, as a picture: one row each for memory, descriptors, the p99 of cached answers and the store, over
//! the time of the run. Rounds with strangers are shaded.

use crate::Plan;
use crate::answers::Answered;
use crate::sample::Sample;
use crate::table::{file, percentile};
use std::fmt::Write;

const WIDTH: f64 = 860.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 24.0;
const ROW: f64 = 120.0;
const GAP: f64 = 46.0;

/// A value at a time in seconds.
type Point = (f64, f64);

struct Row {
    title: &'static str,
    points: Vec<Point>,
    /// The values stay the same until the next point.
    is_stepped: bool,
}

pub fn write(plan: &Plan, answered: &Answered, samples: &[Sample]) {
    let series = |of: &dyn Fn(&Sample) -> f64| -> Vec<Point> {
        samples.iter().map(|one| (one.after.as_secs_f64(), of(one))).collect()
    };
    let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let p99 = answered.rounds.iter().enumerate().map(|(round, times)| {
        (plan.round.as_secs_f64() * round as f64, f64::from(percentile(times, 0.99)) / 1000.0)
    });
    let rows = [
        Row {
            title: "Anonymous memory, MiB",
            points: series(&|one| mebibytes(one.memory)),
            is_stepped: false,
        },
        Row { title: "Descriptors", points: series(&|one| one.descriptors as f64), is_stepped: false },
        Row { title: "p99 of cached answers, ms", points: p99.collect(), is_stepped: true },
        Row { title: "Store, MiB", points: series(&|one| mebibytes(one.store)), is_stepped: false },
    ];
    std::fs::write(file("endurance.svg"), picture(plan, &rows)).unwrap();
}

fn picture(plan: &Plan, rows: &[Row]) -> String {
    let total = plan.round.as_secs_f64() * plan.rounds as f64;
    let height = 34.0 + (ROW + GAP) * rows.len() as f64;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"Memory, descriptors, p99 of cached answers and size of the store over the time of the run\">\n\
         <style>text{{font:12px sans-serif;fill:#333}}.title{{font-weight:bold}}.line{{fill:none;stroke:#1b6ca8;stroke-width:1.5}}.axis{{stroke:#999;stroke-width:1}}.with{{fill:#e9b44c;fill-opacity:.3}}</style>\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#fff\"/>\n\
         <rect class=\"with\" x=\"{LEFT}\" y=\"8\" width=\"14\" height=\"12\"/><text x=\"{}\" y=\"18\">rounds with strangers</text>\n",
        LEFT + 20.0
    );
    for (number, row) in rows.iter().enumerate() {
        let top = 34.0 + 20.0 + (ROW + GAP) * number as f64;
        draw(&mut svg, plan, row, top, total);
    }
    svg + "</svg>\n"
}

fn draw(svg: &mut String, plan: &Plan, row: &Row, top: f64, total: f64) {
    let most = round_up(row.points.iter().map(|point| point.1).fold(0.0, f64::max));
    let x = |seconds: f64| LEFT + (WIDTH - LEFT - RIGHT) * (seconds / total).min(1.0);
    let y = |value: f64| top + ROW * (1.0 - value / most);
    let _ = writeln!(svg, "<text class=\"title\" x=\"{LEFT}\" y=\"{:.1}\">{}</text>", top - 6.0, row.title);
    for round in (0..plan.rounds).filter(|round| plan.has_strangers(*round)) {
        let begun = plan.round.as_secs_f64() * round as f64;
        let (from, to) = (x(begun), x(begun + (plan.round - plan.pause).as_secs_f64()));
        let _ = writeln!(
            svg,
            "<rect class=\"with\" x=\"{from:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{ROW}\"/>",
            to - from
        );
    }
    for part in 0..=2 {
        let value = most * f64::from(part) / 2.0;
        let at = y(value);
        let _ = writeln!(
            svg,
            "<line class=\"axis\" x1=\"{LEFT}\" y1=\"{at:.1}\" x2=\"{}\" y2=\"{at:.1}\"/><text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            WIDTH - RIGHT,
            LEFT - 6.0,
            at + 4.0,
            (value * 100.0).round() / 100.0
        );
    }
    for part in 0..=6 {
        let seconds = total * f64::from(part) / 6.0;
        let label =
            if total < 120.0 { format!("{seconds:.0} s") } else { format!("{:.0} min", seconds / 60.0) };
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{label}</text>",
            x(seconds),
            top + ROW + 15.0
        );
    }
    let mut line = String::new();
    for (number, point) in row.points.iter().enumerate() {
        let end = row.points.get(number + 1).map_or(total, |next| next.0);
        let _ = write!(line, "{:.1},{:.1} ", x(point.0), y(point.1));
        if row.is_stepped {
            let _ = write!(line, "{:.1},{:.1} ", x(end), y(point.1));
        }
    }
    let _ = writeln!(svg, "<polyline class=\"line\" points=\"{}\"/>", line.trim_end());
}

/// The next value that is 1, 2 or 5 times a power of ten.
fn round_up(value: f64) -> f64 {
    let power = 10f64.powf(value.max(1e-6).log10().floor());
    [1.0, 2.0, 4.0, 5.0, 8.0, 10.0]
        .into_iter()
        .map(|step| step * power)
        .find(|step| *step >= value)
        .unwrap_or(value)
}
