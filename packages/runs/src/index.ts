export {
  loadRun,
  loadSamples,
  loadTokenizerJson,
  type RunSetup,
  type RunSource,
  setupOf,
} from "./run-setup.ts";
export { bodyOf, sentForm } from "./update-forms.ts";
