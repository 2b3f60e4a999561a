import { CovenantError } from "@covenant/runtime";

/** Rows of a page at most. */
export const pageSizeMax = 200;

/** Reads page size and token; throws COV_INVALID_ARGUMENT for a token that was not given out. */
export function readPage(request: { pageSize: number; pageToken: string }): {
  offset: number;
  count: number;
} {
  const { pageSize, pageToken } = request;
  const offset = pageToken === "" ? 0 : Number(pageToken);
  if (!Number.isSafeInteger(offset) || offset < 0) {
    throw new CovenantError("COV_INVALID_ARGUMENT", "pageToken was not given out by this service");
  }
  return { offset, count: Math.min(pageSize === 0 ? 50 : pageSize, pageSizeMax) };
}

/** Token of the page after this one; empty when there is none. */
export function nextPageToken(page: { offset: number; count: number }, more: boolean): string {
  return more ? String(page.offset + page.count) : "";
}
