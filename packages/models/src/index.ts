export { type TrainTokenizerOptions, trainTokenizer } from "./bpe-trainer.ts";
export type { ChatMessage, RenderOptions } from "./chat.ts";
export {
  completionText,
  type EncodedChat,
  encodeChat,
  type PackedChats,
  type PackOptions,
  packChats,
  stopTokens,
} from "./chat-batches.ts";
export { buildDataSet, type DataSet, type DataSetOptions, type DataShard } from "./data-set.ts";
export { DEVICE_SETTING, deviceSettings, devicesOf, missingDevice } from "./device-setting.ts";
export { DataError, type DataErrorCode } from "./errors.ts";
export { modelConfigOf, modelShapeOf } from "./model-config.ts";
export { type DeviceOptions, openModel } from "./open-model.ts";
export { SampleSource, type SampleSourceOptions, type ShardContent } from "./sample-source.ts";
export { type LearningRateSchedule, learningRateAt } from "./schedule.ts";
export { type EncodeOptions, type NamedFile, Tokenizer } from "./tokenizer.ts";
export {
  type AddedToken,
  CHAT_TEMPLATE,
  END_OF_TEXT,
  makeTokenizerConfig,
  SPECIAL_TOKENS,
  type TokenizerConfig,
  type TokenizerJson,
} from "./tokenizer-json.ts";
export {
  bitsPerByte,
  type InnerStepsOptions,
  type InnerStepsResult,
  meanLoss,
  type OptimizerSettings,
  runInnerSteps,
  type StepReport,
  scoredPositions,
  sequenceLosses,
} from "./training.ts";
