//! The pictures.

use crate::{Outcome, measured::Measured};
use plotters::prelude::*;
use std::{collections::BTreeMap, error::Error, path::Path};

type Drawn = Result<(), Box<dyn Error>>;

/// Blue and vermilion of Okabe and Ito, which colour-blind readers tell apart.
const GOOD: RGBColor = RGBColor(0, 114, 178);
const SHORT: RGBColor = RGBColor(213, 94, 0);
const GREY: RGBColor = RGBColor(110, 110, 110);
const LINE: i32 = 26;
const TOP: i32 = 50;

/// Where the bars are: a logarithmic scale of multiples of the target, from 1/64 to 64.
struct Scale {
    left: i32,
    right: i32,
}

impl Scale {
    fn x(&self, quotient: f64) -> i32 {
        let at = quotient.log2().clamp(-6.0, 6.0);
        self.left + ((at + 6.0) / 12.0 * f64::from(self.right - self.left)) as i32
    }
}

type Sheet<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

fn style(size: i32, color: &RGBColor) -> TextStyle<'_> {
    ("sans-serif", size).into_font().color(color)
}

/// Each row: a bar from the target to where it stands, on a logarithmic scale, with its spread.
pub(crate) fn ratios(file: &Path, outcomes: &[Outcome<'_>]) -> Drawn {
    let rows: Vec<_> = outcomes
        .iter()
        .filter_map(|o| Some((o, o.ratio()?)))
        .collect();
    if rows.is_empty() {
        return Ok(());
    }
    let scale = Scale {
        left: 430,
        right: 860,
    };
    let height = TOP + rows.len() as i32 * LINE + 50;
    let root = SVGBackend::new(file, (920, height as u32)).into_drawing_area();
    root.fill(&WHITE)?;
    axis(&root, &scale, height)?;
    for (i, (outcome, m)) in rows.iter().enumerate() {
        bar(&root, &scale, TOP + i as i32 * LINE + LINE / 2, outcome, m)?;
    }
    root.present()?;
    Ok(())
}

fn axis(root: &Sheet<'_>, scale: &Scale, height: i32) -> Drawn {
    let title = "Time as a multiple of what is to be reached";
    root.draw(&Text::new(title, (20, 14), style(17, &BLACK)))?;
    for power in -6..=6 {
        let at = scale.x(2_f64.powi(power));
        let color = if power == 0 {
            BLACK
        } else {
            RGBColor(225, 225, 225)
        };
        let line = vec![(at, TOP - 6), (at, height - 36)];
        root.draw(&PathElement::new(line, color.stroke_width(1)))?;
        if power % 2 == 0 {
            let label = if power < 0 {
                format!("1/{}", 1 << -power)
            } else {
                format!("{}", 1 << power)
            };
            root.draw(&Text::new(label, (at - 8, height - 28), style(13, &GREY)))?;
        }
    }
    Ok(())
}

fn bar(root: &Sheet<'_>, scale: &Scale, y: i32, outcome: &Outcome<'_>, m: &Measured) -> Drawn {
    let reach = outcome.target.reach;
    let color = if m.median <= reach { GOOD } else { SHORT };
    let name = format!("{} / {}", outcome.target.work, m.against);
    root.draw(&Text::new(name, (10, y - 7), style(12, &BLACK)))?;
    let bar = vec![(scale.x(1.0), y), (scale.x(m.median / reach), y)];
    root.draw(&PathElement::new(bar, color.mix(0.35).stroke_width(9)))?;
    let spread = vec![(scale.x(m.low / reach), y), (scale.x(m.high / reach), y)];
    root.draw(&PathElement::new(spread, color.stroke_width(2)))?;
    root.draw(&Circle::new(
        (scale.x(m.median / reach), y),
        4,
        color.filled(),
    ))?;
    Ok(())
}

/// Costs by size, from benchmarks whose group is called `growth: …` and whose name ends in a
/// number.
pub(crate) fn growth(file: &Path, all: &[Measured]) -> Drawn {
    let mut lines: BTreeMap<&str, Vec<(f64, f64)>> = BTreeMap::new();
    for m in all {
        let size = m
            .against
            .rsplit('/')
            .next()
            .and_then(|n| n.parse::<f64>().ok());
        if let (Some(name), Some(size)) = (m.group.strip_prefix("growth: "), size) {
            lines.entry(name).or_default().push((size, m.median));
        }
    }
    if lines.is_empty() {
        return Ok(());
    }
    let columns = 3;
    let rows = lines.len().div_ceil(columns);
    let root = SVGBackend::new(file, (1080, 300 * rows as u32)).into_drawing_area();
    root.fill(&WHITE)?;
    for (area, (name, points)) in root.split_evenly((rows, columns)).iter().zip(&mut lines) {
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        panel(area, name, points)?;
    }
    root.present()?;
    Ok(())
}

fn panel(area: &Sheet<'_>, name: &str, points: &[(f64, f64)]) -> Drawn {
    let (first, last) = (points[0], points[points.len() - 1]);
    let (low, high) = points
        .iter()
        .fold((f64::MAX, 0.0_f64), |(l, h), p| (l.min(p.1), h.max(p.1)));
    let mut chart = ChartBuilder::on(area)
        .caption(name, ("sans-serif", 14))
        .margin(12)
        .x_label_area_size(34)
        .y_label_area_size(64)
        .build_cartesian_2d(
            (first.0..last.0 * 1.1).log_scale(),
            (low / 2.0..high * 2.0).log_scale(),
        )?;
    chart
        .configure_mesh()
        .x_desc("how many")
        .y_desc("time")
        .x_label_formatter(&|v| format!("{v:.0}"))
        .y_label_formatter(&|v| duration(*v))
        .light_line_style(WHITE)
        .label_style(("sans-serif", 11))
        .draw()?;
    chart.draw_series(LineSeries::new(
        points.iter().copied(),
        GOOD.stroke_width(2),
    ))?;
    chart.draw_series(points.iter().map(|p| Circle::new(*p, 4, GOOD.filled())))?;
    Ok(())
}

fn duration(ns: f64) -> String {
    match ns {
        ns if ns < 1e3 => format!("{ns:.0} ns"),
        ns if ns < 1e6 => format!("{:.1} µs", ns / 1e3),
        ns => format!("{:.1} ms", ns / 1e6),
    }
}
