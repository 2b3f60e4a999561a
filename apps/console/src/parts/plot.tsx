// A line plot that follows its data and its width.
import { useEffect, useRef } from "preact/hooks";
import uPlot from "uplot";

/** One line of the plot; gaps are null. */
export interface Series {
  label: string;
  colour: string;
  values: readonly (number | null)[];
}

interface PlotProps {
  /** Says what the plot shows, to those who cannot see it too. */
  title: string;
  xLabel: string;
  x: readonly number[];
  series: readonly Series[];
  heightPixels?: number;
}

const wholeSteps = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 10_000, 100_000];

function options(props: PlotProps, widthPixels: number): uPlot.Options {
  const ink = getComputedStyle(document.documentElement).getPropertyValue("--quiet").trim();
  const grid = getComputedStyle(document.documentElement).getPropertyValue("--line").trim();
  const axis = { stroke: ink, grid: { stroke: grid, width: 1 }, ticks: { stroke: grid } };
  return {
    width: widthPixels,
    height: props.heightPixels ?? 260,
    scales: { x: { time: false } },
    cursor: { drag: { x: false, y: false } },
    // Rounds and steps are whole.
    axes: [{ ...axis, label: props.xLabel, labelSize: 20, incrs: wholeSteps }, axis],
    series: [
      { label: props.xLabel },
      ...props.series.map(({ label, colour }) => ({
        label,
        stroke: colour,
        width: 2,
        points: { show: props.x.length < 40, size: 5 },
        value: (_: uPlot, value: number | null) => (value === null ? "—" : value.toFixed(3)),
      })),
    ],
  };
}

export function Plot(props: PlotProps) {
  const holder = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | undefined>(undefined);
  const data = [props.x, ...props.series.map(({ values }) => values)] as uPlot.AlignedData;
  const latest = useRef(data);
  latest.current = data;
  const names = props.series.map(({ label }) => label).join("|");

  useEffect(() => {
    const element = holder.current;
    if (!element) return;
    plot.current = new uPlot(options(props, element.clientWidth), latest.current, element);
    const resize = new ResizeObserver(() => {
      plot.current?.setSize({ width: element.clientWidth, height: props.heightPixels ?? 260 });
    });
    resize.observe(element);
    return () => {
      resize.disconnect();
      plot.current?.destroy();
      plot.current = undefined;
    };
    // A new set of lines needs a new plot; new values do not.
  }, [names]);

  useEffect(() => {
    plot.current?.setData(data);
  });

  return (
    <figure>
      <figcaption>{props.title}</figcaption>
      <div ref={holder} role="img" aria-label={props.title} />
    </figure>
  );
}
