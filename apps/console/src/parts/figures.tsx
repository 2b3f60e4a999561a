// Small figures: a number with its name, a share as a bar.
import type { ComponentChildren } from "preact";

export function Figure({
  name,
  long,
  children,
}: {
  name: string;
  /** For sentences instead of numbers. */
  long?: boolean;
  children: ComponentChildren;
}) {
  return (
    <div class={long ? "figure long" : "figure"}>
      <dt>{name}</dt>
      <dd>{children}</dd>
    </div>
  );
}

export function Figures({ children }: { children: ComponentChildren }) {
  return <dl class="figures">{children}</dl>;
}

/** A horizontal bar; `share` and `scale` in 0..1. */
export function ShareBar({
  share,
  scale = 1,
  label,
}: {
  share: number;
  scale?: number;
  label: string;
}) {
  const percent = `${(share * 100).toFixed(1)} %`;
  return (
    <div class="share" role="img" aria-label={`${label}: ${percent}`}>
      <div class="share-bar" style={{ width: `${Math.min(100, (share / scale) * 100)}%` }} />
      <span>{percent}</span>
    </div>
  );
}

export function Empty({ children }: { children: ComponentChildren }) {
  return <p class="empty">{children}</p>;
}

/** "1.2 MiB". */
export function bytesText(bytes: number): string {
  const units = ["B", "KiB", "MiB", "GiB"];
  const power = Math.min(units.length - 1, Math.floor(Math.log2(Math.max(1, bytes)) / 10));
  return power === 0 ? `${bytes} B` : `${(bytes / 1024 ** power).toFixed(1)} ${units[power]}`;
}

export function hexText(bytes: Uint8Array, digits = 12): string {
  const text = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return text.length > digits ? `${text.slice(0, digits)}…` : text;
}
