/**
 * The pages on which the servers of the option `server` show their health, models, slots and queue.
 *
 * Sources: https://docs.vllm.ai/en/stable/serving/openai_compatible_server/, https://docs.ollama.com/api and
 * https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md (2026-11).
 */
import * as Effect from "effect/Effect"
import * as HttpServerResponse from "effect/http/HttpServerResponse"
import * as Engine from "../engine.ts"
import type { ServerKind } from "../models.ts"
import type { AcceptedCall } from "../state.ts"
import { kindOf } from "../servers.ts"
import * as Metrics from "./metrics.ts"
import type { RunningProvider } from "./serving.ts"

/** A page, and what it shows. */
export type ServerPage = readonly [path: `/${string}`, answer: Effect.Effect<HttpServerResponse.HttpServerResponse>]

type Page = readonly [path: `/${string}`, content: () => unknown]

/** The pages of the server, which are none without the option `server`. */
export const of = (playing: RunningProvider): ReadonlyArray<ServerPage> => {
  const kind = kindOf(playing.self.options)
  if (kind === undefined) return []
  const { now, self } = playing
  const metrics = Effect.sync(() => HttpServerResponse.text(Metrics.ofServer(Engine.stats(self.engine, now()))))
  const models: Page = ["/v1/models", () => ({ object: "list", data: namesOf(playing).map(modelOf(kind)) })]
  const pages = [models, ...pagesOf[kind](playing)].map(([path, content]): ServerPage => [
    path,
    Effect.sync(() => {
      const shown = content()
      return typeof shown === "string" ? HttpServerResponse.text(shown) : HttpServerResponse.jsonUnsafe(shown)
    })
  ])
  return [["/metrics", metrics], ...pages]
}

// -----------------------------------------------------------------------------
// Models
// -----------------------------------------------------------------------------

/** The models: those with a pool of their own, or otherwise one. */
const namesOf = ({ self: { options } }: RunningProvider): ReadonlyArray<string> => {
  const names = Object.keys(options.pools ?? {})
  return names.length === 0 ? ["llama3.2"] : names
}

const owners: Readonly<Record<ServerKind, string>> = { vllm: "vllm", "llama.cpp": "llamacpp", ollama: "library" }

const modelOf = (kind: ServerKind) => (id: string) => ({ id, object: "model", created: 0, owned_by: owners[kind] })

const localModelOf = (name: string) => {
  const model = name.includes(":") ? name : `${name}:latest`
  const details = {
    format: "gguf",
    family: "llama",
    families: ["llama"],
    parameter_size: "3.2B",
    quantization_level: "Q4_K_M"
  }
  return {
    name: model,
    model,
    modified_at: "2026-11-01T00:00:00Z",
    size: 2_000_000_000,
    digest: "0".repeat(64),
    details
  }
}

// -----------------------------------------------------------------------------
// Slots
// -----------------------------------------------------------------------------

/** The calls that run, of all pools. */
const runningOf = ({ now, self: { engine } }: RunningProvider): ReadonlyArray<AcceptedCall> => {
  Engine.advance(engine, now())
  return [...engine.pools.values()].flatMap(({ batch }) => batch?.running.map(({ owner }) => owner) ?? [])
}

/** How many slots there are, which may be without a bound in the simulation. */
const slotCount = ({ self: { engine } }: RunningProvider, running: number): number =>
  Math.max(running, Number.isFinite(engine.options.concurrency) ? engine.options.concurrency! : 0)

const slotsOf = (playing: RunningProvider): ReadonlyArray<unknown> => {
  const running = runningOf(playing)
  return Array.from({ length: slotCount(playing, running.length) }, (_, id) => {
    const call = running[id]
    return {
      id,
      id_task: call?.entry.call ?? -1,
      speculative: false,
      is_processing: call !== undefined,
      ...(call && { next_token: { has_next_token: true, n_decoded: call.sequence?.produced ?? 0 } })
    }
  })
}

// -----------------------------------------------------------------------------
// Servers
// -----------------------------------------------------------------------------

const pagesOf: Readonly<Record<ServerKind, (playing: RunningProvider) => ReadonlyArray<Page>>> = {
  vllm: () => [["/health", () => ""]],
  "llama.cpp": (playing) => [
    ["/health", () => ({ status: "ok" })],
    ["/slots", () => slotsOf(playing)],
    ["/props", () => ({ total_slots: slotCount(playing, 0), model_path: namesOf(playing)[0], is_sleeping: false })]
  ],
  ollama: (playing) => [
    ["/", () => "Ollama is running"],
    ["/api/version", () => ({ version: "0.13.0" })],
    ["/api/tags", () => ({ models: namesOf(playing).map(localModelOf) })],
    ["/api/ps", () => ({ models: namesOf(playing).map(localModelOf) })]
  ]
}
