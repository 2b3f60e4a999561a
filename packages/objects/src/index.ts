export type { FileObjectStoreOptions } from "./file-object-store.ts";
export { openFileObjectStore } from "./file-object-store.ts";
export { checkBucket, checkKey, KEY_BYTES_MAX, KEY_SEGMENT_BYTES_MAX } from "./names.ts";
export type {
  GetOptions,
  ListOptions,
  ObjectHead,
  ObjectPage,
  ObjectStore,
  PutOptions,
} from "./object-store.ts";
export { LIST_LIMIT_MAX } from "./object-store.ts";
