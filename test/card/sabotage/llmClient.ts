/** `floodgate/LlmClient` whose clients ignore their policy. */
import * as LlmClient from "floodgate/LlmClient"

export * from "floodgate/LlmClient"

export const layerProvider: typeof LlmClient.layerProvider = (options) =>
  LlmClient.layerProvider({ ...options, retry: undefined })
export const layer: typeof LlmClient.layer = (options) => LlmClient.layer({ ...options, retry: undefined })
