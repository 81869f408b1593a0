/** The errors of the server, in Anthropic's terms. Pure. */

/** An error in Anthropic's terms. */
export interface ApiError {
  readonly status: number
  readonly errorType: string
  readonly errorCode?: string | undefined
  readonly message: string
}

/** The request is not valid (400). */
export const invalid = (message: string): ApiError => ({ status: 400, errorType: "invalid_request_error", message })

/** There is no key (401). */
export const unauthenticated: ApiError = {
  status: 401,
  errorType: "authentication_error",
  message: "x-api-key, api-key, x-goog-api-key or authorization: Bearer is required"
}

/** The companies whose protocols the server speaks, each with its own words for the same errors. */
export type Vendor = "anthropic" | "openai" | "gemini"

/** The key is not one of the provider's (401, and 400 as Google has it). */
export const wrongKey: { readonly [V in Vendor]: ApiError } = {
  anthropic: { status: 401, errorType: "authentication_error", message: "invalid x-api-key" },
  openai: {
    status: 401,
    errorType: "authentication_error",
    message: "Incorrect API key provided. You can find your API key at https://platform.openai.com/account/api-keys."
  },
  gemini: {
    status: 400,
    errorType: "invalid_request_error",
    message: "API key not valid. Please pass a valid API key."
  }
}

/** The provider has no model of this name (404). */
export const modelNotFound = (vendor: Vendor, model: string): ApiError => {
  const name = model.slice(0, 100)
  switch (vendor) {
    case "anthropic":
      return { status: 404, errorType: "not_found_error", message: `model: ${name}` }
    case "openai":
      return {
        status: 404,
        errorType: "not_found_error",
        errorCode: "model_not_found",
        message: `The model \`${name}\` does not exist or you do not have access to it.`
      }
    case "gemini":
      return {
        status: 404,
        errorType: "not_found_error",
        message: `models/${name} is not found for API version v1beta, or is not supported for generateContent.`
      }
  }
}

/** There is no endpoint at this address (404). */
export const notFound = (method: string, path: string): ApiError => ({
  status: 404,
  errorType: "not_found_error",
  message: `${method} ${path} is not served here`
})

/** The thread that a request continues is not stored (404). */
export const threadNotFound: ApiError = {
  status: 404,
  errorType: "not_found_error",
  errorCode: "thread_not_found",
  message: "The thread of thread.previous_message_id was not found"
}

/** The answer that a request continues is not stored (400, as OpenAI has it). */
export const responseNotFound = (id: string): ApiError => ({
  status: 400,
  errorType: "invalid_request_error",
  errorCode: "previous_response_not_found",
  message: `Previous response with id '${id.slice(0, 100)}' not found`
})

/** The conversation that a request adds to is not stored (404). */
export const conversationNotFound = (id: string): ApiError => ({
  status: 404,
  errorType: "not_found_error",
  message: `Conversation with id '${id.slice(0, 100)}' not found.`
})

/** The item that a request refers to is not stored (404). */
export const itemNotFound = (id: string): ApiError => ({
  status: 404,
  errorType: "not_found_error",
  message: `Item with id '${id.slice(0, 100)}' not found`
})

/** The body is larger than the provider accepts (413). */
export const tooLarge = (bytes: number): ApiError => ({
  status: 413,
  errorType: "request_too_large",
  message: `Request exceeds the maximum size of ${bytes} bytes`
})

/** The server failed (500). */
export const failed: ApiError = { status: 500, errorType: "api_error", message: "Internal server error" }

/** The provider did not answer the request in time (504). */
export const timedOut: ApiError = { status: 504, errorType: "timeout_error", message: "The request timed out" }
