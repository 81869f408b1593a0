/**
 * The cost of requests that are no calls: nothing, something that nobody counts, or by whether their body names a model.
 *
 * Providers add paths faster than this file. So it lists what is known, and everything else is told by the name of a model, which all
 * requests for one have: in the path, the query, a form or the body.
 */
import type { HeaderReader } from "./headers.ts"
import { pathOf, readingsOf } from "./protocol.ts"

/** The name of a property or a field that names a model. */
const modelName = "model(?:[_-]?(?:id|name))?"

// -----------------------------------------------------------------------------
// Paths
// -----------------------------------------------------------------------------

/** Requests for a model whose usage is not read, and that need not name it. */
const paid: ReadonlyArray<RegExp> = [
  // Batches, whose answers come later. Google's envelope of several requests is one, too.
  /\/(?:batches|batch\/jobs|batchPredictionJobs|model-invocation-jobs?|async-invoke|embed-jobs)$/i,
  /^\/(?:.*\/)?batch(?:\/v\d[a-z\d]*)?(?:\/.*)?$/i,
  // Uploads and media.
  /\/images\/(?:edits|variations)$/,
  /\/audio\/(?:transcriptions|translations)$/,
  /\/videos(?:\/[^/]+)*$/,
  // Agents that run at the provider, and conversations by voice.
  /\/threads\/(?:runs|[^/]+\/runs(?:\/[^/]+\/submit_tool_outputs)?)$/,
  /\/(?:realtime|live)\/(?:sessions|calls|client_secrets|transcription_sessions|translations)(?:\/.*)?$/,
  /\/chatkit\/sessions$/,
  /\/agents\/(?:sessions(?:\/.*)?|automations(?:\/[^/]+(?:\/(?:invocations|resume))?)?)$/,
  /\/v\d+\/(?:sessions(?:\/.*)?|dreams|deployments(?:\/[^/]+(?:\/(?:run|unpause))?)?|containers)$/,
  /\/workflows\/[^/]+\/execute$/,
  // Evaluation and training.
  /\/evals\/[^/]+\/runs$/,
  /\/fine_tuning\/(?:jobs(?:\/[^/]+\/resume)?|alpha\/graders\/run)$/,
  /\/finetuning\/finetuned-models$/,
  // Older or rare requests of a model.
  /\/complete$/,
  /\/v1\/(?:chat|generate|classify|summarize)$/,
  /\/v2\/parse$/,
  /\/(?:rerank|decisions|content_provenance_checks|cachedContents|classifications|chat\/moderations)$/,
  /\/guardrail\/[^/]+\/version\/[^/]+\/apply$/
]

/** Requests that cost nothing although they may name a model. */
const free: ReadonlyArray<RegExp> = [
  /\/(?:count_tokens|count-tokens|input_tokens|tokenize|detokenize|check-api-key)$/i,
  /:(?:countTokens|computeTokens)$|\/count-tokens:rawPredict$/i,
  /(?:\/|:)(?:cancel|hangup|reject|archive|pause)$/i,
  // Agents are stored, and run by other requests.
  /\/(?:assistants|evals)(?:\/[^/]+)?$/i,
  /\/agents(?:\/(?!completions$|sessions$|automations$)[^/]+(?:\/(?:versions?|aliases))?)?$/i,
  /\/fine_tuning\/(?:models\/.*|alpha\/graders\/validate)$/i,
  // Settings of the organisation.
  /\/v\d+\/organizations?\/.*$/i,
  // Ollama's models.
  /\/api\/(?:show|pull|push|create|copy|blobs\/[^/]+)$/i
]

/** Paths that name a model, or a deployment of one. */
const ofModel =
  /\/(?:models|tunedModels|endpoints|publishers\/[^/]+\/models)\/[^/:]+:[a-z]|^\/model\/[^/]+\/|(?:^|\/openai)\/(?:deployments|engines)\/[^/]+\/|\/engines\/[^/]+\/completions$/i
const inQuery = new RegExp(`[?&;](?:${modelName}|deployment)=[^&]`, "i")

/** Methods that no provider answers with a model, unless they have a body. */
const withoutBody: ReadonlySet<string> = new Set(["GET", "HEAD", "OPTIONS", "DELETE"])

/**
 * The possible cost of a request that is no call.
 *
 * - `"nothing"`: it is known to be free, or asks for nothing new.
 * - `"something"`: a model answers, now or later, and the usage is not read.
 * - `"by its body"`: something, if its body names a model.
 */
export type UncountedCost = "nothing" | "something" | "by its body"

/** The possible cost of a request that is no call, by its method and its URL, which may be relative. */
export const costOf = (method: string, url: string, hasBody: boolean): UncountedCost => {
  if (withoutBody.has(method) && !hasBody) return "nothing"
  const path = pathOf(url)
  if (path === undefined) return "by its body"
  // A free path must be one however a server reads it.
  const readings = [path, ...readingsOf(path)]
  if (readings.every((reading) => free.some((each) => each.test(reading)))) return "nothing"
  const isPaid = readings.some((reading) => ofModel.test(reading) || paid.some((each) => each.test(reading)))
  return isPaid || inQuery.test(readQuery(url)) ? "something" : "by its body"
}

/** Decodes each escape for itself: another that is malformed must not hide it. */
const decoded = (text: string): string =>
  text.replaceAll(/%([\da-f]{2})/gi, (_, code: string) => String.fromCharCode(Number.parseInt(code, 16)))

const readQuery = (url: string): string => {
  const start = url.indexOf("?")
  return start < 0 ? "" : decoded(url.slice(start))
}

// -----------------------------------------------------------------------------
// Bodies
// -----------------------------------------------------------------------------

/** A property of JSON. Some servers ignore the case of names. */
const property = new RegExp(`(?<!\\\\)"${modelName}"\\s{0,64}:\\s{0,64}"([^"]{1,512})`, "i")
const formField = new RegExp(`(?:^|&)${modelName}=([^&]{1,512})`, "i")
/** A request within a request. */
const innerRequest = /^(?:POST|PUT|PATCH) \S{0,2048}\/models?\/([^/:\s]{1,512})[:/]/im
/** A line of the file of a batch. */
const batchLine = /^[ \t]{0,8}\{.{0,4096}"(?:body|params|request)"\s{0,8}:\s{0,8}\{/m
const batchPurpose = /"purpose"\s{0,8}:\s{0,8}"batch"/i

/** JSON may write letters as escapes. */
const unescaped = (text: string): string =>
  text.includes("\\u00")
    ? text.replaceAll(/\\u00([4-7][\da-f])/gi, (_, code: string) => String.fromCharCode(Number.parseInt(code, 16)))
    : text

/** Stands for the models of a batch, which are in its file. */
const batch = "batch"

// A caller chooses the body, so the time that a form takes is bounded by the number of its parts.
const maxParts = 1_000
const disposition = /^content-disposition\s{0,8}:[^\r\n]{0,1024}(?:\r?\n[ \t][^\r\n]{0,256}){0,4}/gim
const namesModel = new RegExp(`\\bname="?(?:[^"]{0,64}\\[)?${modelName}\\]?"?\\s*(?:;|$)`, "i")
const namesPurpose = /\bname="?purpose"?\s*(?:;|$)/i
/** The bytes after the name of a part in which its value begins. */
const nearBytes = 1_024

/** The model that a form names in a field; undefined if it names none. A form of very many parts is not read. */
const modelInForm = (form: string): string | undefined => {
  let parts = 0
  for (const { 0: header, index } of form.matchAll(disposition)) {
    if (++parts > maxParts) return `one of more than ${maxParts} parts`
    const isPurpose = namesPurpose.test(header)
    if (!isPurpose && !namesModel.test(header)) continue
    const start = index + header.length
    const value = /\r?\n\r?\n([^\r\n]{1,512})/.exec(form.slice(start, start + nearBytes))?.[1]?.trim() ?? ""
    if (!isPurpose) return value === "" ? "without a name" : value
    if (value === batch) return batch
  }
  return undefined
}

/**
 * The model that a body names, as text in which each byte is a character: in JSON, on lines of JSON, or in a form. Undefined if it
 * names none. Files in a form are read only if they are those of a batch.
 */
export const modelIn = (text: string, contentType: string): string | undefined => {
  const type = contentType.toLowerCase()
  // UTF-16 has a zero beside each letter.
  const body = unescaped(text.includes("\0") ? text.replaceAll("\0", "") : text)
  if (batchPurpose.test(body)) return batch
  const inner = innerRequest.exec(body)?.[1]
  if (inner !== undefined) return inner
  if (type.includes("multipart/") && !type.includes("multipart/mixed")) {
    return modelInForm(body) ?? (batchLine.test(body) && property.test(body) ? batch : undefined)
  }
  if (type.includes("x-www-form-urlencoded")) return formField.exec(decoded(body))?.[1]
  return property.exec(body)?.[1] ?? (type === "" ? formField.exec(body)?.[1] : undefined)
}

// -----------------------------------------------------------------------------
// Methods
// -----------------------------------------------------------------------------

/** Headers by which some servers take another method or another path than that of the request. */
const overrides = [
  "x-http-method-override",
  "x-http-method",
  "x-method-override",
  "x-original-method",
  "x-original-url",
  "x-rewrite-url"
] as const
const overrideInQuery = /[?&;](?:\$?httpMethod|_method|x-http-method(?:-override)?)=/i

/** The header or the parameter by which a request asks to be taken for another one; undefined if it does not. */
export const overrideIn = (url: string, header: HeaderReader): string | undefined =>
  overrides.find((name) => (header(name) ?? "") !== "") ??
  (url.includes("?") ? overrideInQuery.exec(readQuery(url))?.[0].slice(1, -1) : undefined)
