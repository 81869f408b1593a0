/**
 * Writes the table of docs/figures/paths.md that says what becomes of each known request. `npm run docs:paths` writes it;
 * test/docs.lint.test.ts compares it, and checks that no request of the installed SDKs is missing.
 */
import { readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { callIn } from "../src/protocol/protocol.ts"
import { protocols } from "../src/protocol/protocols.ts"
import { costOf } from "../src/protocol/uncounted.ts"
import { root } from "../test/support/modules.ts"

/** The handling of a request; docs/gateway.md, "Where a request goes", says what each is. */
export type Handling = "counted" | "paced" | "free" | "refused" | "passed"

/**
 * The requests with a body that are known, by provider. `{id}` stands for any segment, `...` for the rest of a path, and `M` for a
 * model.
 */
export const known: Readonly<Record<string, ReadonlyArray<string>>> = {
  Anthropic: [
    "/v1/messages",
    "/v1/messages/count_tokens",
    "/v1/messages/batches",
    "/v1/messages/batches/{id}/cancel",
    "/v1/complete",
    "/v1/files",
    "/v1/skills",
    "/v1/skills/{id}/versions",
    "/v1/agents",
    "/v1/agents/{id}",
    "/v1/agents/{id}/archive",
    "/v1/sessions",
    "/v1/sessions/{id}/...",
    "/v1/environments/...",
    "/v1/deployments",
    "/v1/deployments/{id}",
    "/v1/deployments/{id}/run",
    "/v1/deployments/{id}/pause",
    "/v1/deployments/{id}/unpause",
    "/v1/deployments/{id}/archive",
    "/v1/dreams",
    "/v1/dreams/{id}/cancel",
    "/v1/dreams/{id}/archive",
    "/v1/memory_stores/...",
    "/v1/tunnels/...",
    "/v1/traces/...",
    "/v1/user_profiles/...",
    "/v1/vaults/...",
    "/v1/organizations/...",
    "/v1/projects/{id}/locations/{id}/publishers/anthropic/models/M:rawPredict",
    "/v1/projects/{id}/locations/{id}/publishers/anthropic/models/M:streamRawPredict",
    "/v1/projects/{id}/locations/{id}/publishers/anthropic/models/count-tokens:rawPredict"
  ],
  OpenAI: [
    "/v1/chat/completions",
    "/v1/chat/completions/{id}",
    "/v1/responses",
    "/v1/responses/compact",
    "/v1/responses/input_tokens",
    "/v1/responses/{id}/cancel",
    "/v1/conversations",
    "/v1/conversations/{id}",
    "/v1/conversations/{id}/items",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/moderations",
    "/v1/images/generations",
    "/v1/images/edits",
    "/v1/images/variations",
    "/v1/audio/speech",
    "/v1/audio/transcriptions",
    "/v1/audio/translations",
    "/v1/audio/voices",
    "/v1/audio/voice_consents/...",
    "/v1/videos",
    "/v1/videos/...",
    "/v1/realtime/client_secrets",
    "/v1/realtime/sessions",
    "/v1/realtime/transcription_sessions",
    "/v1/realtime/translations/client_secrets",
    "/v1/realtime/calls",
    "/v1/realtime/calls/{id}/accept",
    "/v1/realtime/calls/{id}/refer",
    "/v1/realtime/calls/{id}/hangup",
    "/v1/realtime/calls/{id}/reject",
    "/v1/live/sessions",
    "/v1/live/sessions/{id}/accept",
    "/v1/live/sessions/{id}/fork",
    "/v1/live/sessions/{id}/refer",
    "/v1/live/sessions/{id}/hangup",
    "/v1/live/sessions/{id}/reject",
    "/v1/batches",
    "/v1/batches/{id}/cancel",
    "/v1/files",
    "/v1/uploads",
    "/v1/uploads/{id}/...",
    "/v1/vector_stores/...",
    "/v1/containers/...",
    "/v1/assistants",
    "/v1/assistants/{id}",
    "/v1/threads",
    "/v1/threads/{id}",
    "/v1/threads/{id}/messages",
    "/v1/threads/{id}/messages/{id}",
    "/v1/threads/runs",
    "/v1/threads/{id}/runs",
    "/v1/threads/{id}/runs/{id}",
    "/v1/threads/{id}/runs/{id}/submit_tool_outputs",
    "/v1/threads/{id}/runs/{id}/cancel",
    "/v1/fine_tuning/jobs",
    "/v1/fine_tuning/jobs/{id}/cancel",
    "/v1/fine_tuning/jobs/{id}/pause",
    "/v1/fine_tuning/jobs/{id}/resume",
    "/v1/fine_tuning/checkpoints/{id}/permissions",
    "/v1/fine_tuning/alpha/graders/run",
    "/v1/fine_tuning/alpha/graders/validate",
    "/v1/evals",
    "/v1/evals/{id}",
    "/v1/evals/{id}/runs",
    "/v1/evals/{id}/runs/{id}/cancel",
    "/v1/chatkit/sessions",
    "/v1/chatkit/sessions/{id}/cancel",
    "/v1/agents",
    "/v1/agents/{id}",
    "/v1/agents/automations",
    "/v1/agents/automations/{id}",
    "/v1/agents/automations/{id}/invocations",
    "/v1/agents/automations/{id}/pause",
    "/v1/agents/automations/{id}/resume",
    "/v1/agents/environments/...",
    "/v1/agents/sessions/{id}",
    "/v1/agents/sessions/{id}/events",
    "/v1/vaults/...",
    "/v1/decisions",
    "/v1/content_provenance_checks",
    "/v1/skills",
    "/v1/skills/{id}/...",
    "/v1/webhook_endpoints/...",
    "/v1/projects/{id}/...",
    "/v1/organization/..."
  ],
  Gemini: [
    "/v1beta/models/M:generateContent",
    "/v1beta/models/M:streamGenerateContent",
    "/v1beta/models/M:countTokens",
    "/v1beta/models/M:embedContent",
    "/v1beta/models/M:batchEmbedContents",
    "/v1beta/models/M:asyncBatchEmbedContent",
    "/v1beta/models/M:batchGenerateContent",
    "/v1beta/models/M:predict",
    "/v1beta/models/M:predictLongRunning",
    "/v1beta/interactions",
    "/v1beta/interactions/{id}/cancel",
    "/v1beta/batches/{id}:cancel",
    "/v1beta/cachedContents",
    "/v1beta/files",
    "/upload/v1beta/files",
    "/batch/v1beta"
  ],
  Bedrock: [
    "/model/M/converse",
    "/model/M/converse-stream",
    "/model/anthropic.M/invoke",
    "/model/anthropic.M/invoke-with-response-stream",
    "/model/M/invoke",
    "/model/M/invoke-with-response-stream",
    "/model/M/count-tokens",
    "/model-invocation-job",
    "/async-invoke",
    "/guardrail/{id}/version/{id}/apply"
  ],
  Mistral: [
    "/v1/conversations",
    "/v1/conversations/{id}",
    "/v1/conversations/{id}/restart",
    "/v1/agents/completions",
    "/v1/agents",
    "/v1/agents/{id}",
    "/v1/agents/{id}/version",
    "/v1/fim/completions",
    "/v1/ocr",
    "/v1/batch/jobs",
    "/v1/batch/jobs/{id}/cancel",
    "/v1/classifications",
    "/v1/chat/classifications",
    "/v1/chat/moderations",
    "/v1/libraries/...",
    "/v1/workflows/{id}/execute"
  ],
  Cohere: [
    "/v2/chat",
    "/v2/embed",
    "/v2/rerank",
    "/v2/parse",
    "/v1/embed",
    "/v1/rerank",
    "/v1/chat",
    "/v1/generate",
    "/v1/classify",
    "/v1/summarize",
    "/v1/embed-jobs",
    "/v1/tokenize",
    "/v1/detokenize",
    "/v1/datasets"
  ],
  Ollama: [
    "/api/chat",
    "/api/generate",
    "/api/embed",
    "/api/embeddings",
    "/api/show",
    "/api/pull",
    "/api/push",
    "/api/create",
    "/api/copy"
  ],
  "llama.cpp": ["/completion", "/infill", "/tokenize", "/detokenize", "/apply-template", "/embedding", "/reranking"]
}

/** OpenAI's conversations and Mistral's are told apart by their bodies. */
const isMistrals = (provider: string, name: string): boolean =>
  (name === "mistral-conversations") === (provider === "Mistral")

/** Returns the handling of a request with a body, as the code decides. */
export const handlingOf = (provider: string, path: string): Handling => {
  const sample = path
    .replaceAll("{id}", "id_1")
    .replace("/...", "/x")
    .replace(/\/M(?=[:/])/, "/model-1")
    .replace(".M/", ".claude-1/")
  const call = callIn(Object.values(protocols), "POST", sample)
  const isAmbiguous = /conversations/.test(path) && (provider === "OpenAI" || provider === "Mistral")
  const description = call?.protocol.describe(
    { model: "m", inputs: "", input: "", prompt: "", ...bodyOf(sample) },
    call.route
  )
  if (description !== undefined && !(isAmbiguous && !isMistrals(provider, call!.protocol.name))) {
    return description.binary === true || description.operation === "moderation" ? "paced" : "counted"
  }
  const cost = costOf("POST", sample, true)
  if (cost === "nothing") return "free"
  return cost === "something" ? "refused" : "passed"
}

/** Claude's body, which Bedrock's other models do not have. */
const bodyOf = (path: string): object => (/\/model\/model-1\/invoke/.test(path) ? { inputText: "" } : { messages: [] })

const handlings: ReadonlyArray<Handling> = ["counted", "paced", "free", "passed", "refused"]

/** The table, in Markdown. */
export const table = (): string => {
  const rows = Object.entries(known).flatMap(([provider, paths]) =>
    handlings.flatMap((handling) => {
      const same = paths.filter((path) => handlingOf(provider, path) === handling)
      return same.length === 0
        ? []
        : [`| ${provider} | ${handling} | ${same.map((path) => `\`${path}\``).join(", ")} |`]
    })
  )
  return ["| provider | at the gateway | requests with a body |", "| --- | --- | --- |", ...rows].join("\n")
}

const markers = /(?<=<!-- paths -->\n\n)[^]*?(?=\n\n<!-- \/paths -->)/
const page = join(root, "docs/figures/paths.md")

/** The page with the table as it must be. */
export const render = (): string => readFileSync(page, "utf8").replace(markers, () => table())

if (import.meta.main) writeFileSync(page, render())
