// Paths of files inside a checkpoint: what may become a path on somebody's disk.

const PATH_CHARS_MAX = 255;
const DEPTH_MAX = 8;
const SEGMENT = /^[A-Za-z0-9_][A-Za-z0-9._-]*$/;

/**
 * True for relative paths of plain names joined by "/": no "..", no hidden or absolute names, no separators of other
 * systems, no control characters. A name may not end in a dot, which some file systems drop.
 */
export function isSafePath(path: string): boolean {
  const segments = path.split("/");
  return (
    path.length <= PATH_CHARS_MAX &&
    segments.length <= DEPTH_MAX &&
    segments.every((segment) => SEGMENT.test(segment) && !segment.endsWith("."))
  );
}

/**
 * The first path that is unsafe, repeats another (also when only case differs: some file systems do not tell), or
 * is a directory of another; undefined when all paths can live side by side.
 */
export function firstBadPath(paths: readonly string[]): string | undefined {
  const files = new Set<string>();
  const directories = new Set<string>();
  for (const path of paths) {
    const folded = path.toLowerCase();
    if (!isSafePath(path) || files.has(folded)) return path;
    files.add(folded);
    const segments = folded.split("/");
    for (let i = 1; i < segments.length; i++) directories.add(segments.slice(0, i).join("/"));
  }
  return paths.find((path) => directories.has(path.toLowerCase()));
}
