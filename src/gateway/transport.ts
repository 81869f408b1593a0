/**
 * The way to an upstream: kept connections, no limit on the time that an answer takes, and bodies that are read as their
 * reader asks.
 */
import Undici from "@effect/platform-node/Undici"
import type { Dispatcher } from "@effect/platform-node/Undici"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { Readable } from "node:stream"
import * as Zlib from "node:zlib"
import type { Source, Upstream as Response } from "../fetch/engine.ts"
import { headerReader } from "../protocol/headers.ts"
import type { Headers } from "./headers.ts"
import type { Upstream } from "./routes.ts"

/** An answer of an upstream. */
export interface Sent extends Response {
  readonly headers: Headers
  readonly body: Source
  /** Whether the body was compressed, and is not any more. */
  readonly isDecoded: boolean
}

/** What is sent to an upstream. */
export interface Outgoing {
  readonly method: string
  readonly path: string
  readonly headers: ReadonlyArray<string>
  readonly body: string | Uint8Array | Readable | null
  /** Whether the body of the answer is to be read, and not only sent on. */
  readonly read: boolean
}

/** Sends a request once. */
export type Transport = (request: Outgoing, signal: AbortSignal) => Promise<Sent>

/** What undoes a compression. An upstream may compress although it was requested not to. */
const decoders: Readonly<Record<string, () => NodeJS.ReadWriteStream & Readable>> = {
  gzip: Zlib.createGunzip,
  "x-gzip": Zlib.createGunzip,
  deflate: Zlib.createInflate,
  br: Zlib.createBrotliDecompress,
  zstd: Zlib.createZstdDecompress
}

const sourceOf = (body: Readable): Source => {
  const chunks = body[Symbol.asyncIterator]() as AsyncIterator<Uint8Array, undefined>
  // Who reads it gets the error; nobody else is to be told.
  body.on("error", () => {})
  return {
    read: async () => (await chunks.next()).value,
    cancel: () => void body.destroy()
  }
}

const decoded = (body: Readable, decoder: NodeJS.ReadWriteStream & Readable): Readable => {
  body.on("error", (error) => decoder.destroy(error))
  decoder.on("close", () => body.destroy())
  body.pipe(decoder)
  return decoder
}

/** Opens the way to an upstream, which may take so long to begin its answers; connections close with the scope. */
export const make = ({ origin }: Upstream, timeout: Duration.Duration): Effect.Effect<Transport, never, Scope.Scope> =>
  Effect.map(
    Effect.acquireRelease(
      Effect.sync(
        () =>
          new Undici.Pool(origin, {
            headersTimeout: Duration.toMillis(timeout),
            // The engine has limits of its own, which know streams from whole answers.
            bodyTimeout: 0,
            allowH2: false
          })
      ),
      (pool) => Effect.promise(() => pool.destroy().catch(() => {}))
    ),
    (pool): Transport =>
      async ({ body, headers, method, path, read }, signal) => {
        const answer = await pool.request({
          method: method as Dispatcher.HttpMethod,
          path,
          headers: headers as Array<string>,
          body,
          signal
        })
        const header = headerReader(answer.headers)
        const decoder = read ? decoders[header("content-encoding")?.trim().toLowerCase() ?? ""]?.() : undefined
        return {
          status: answer.statusCode,
          header,
          headers: answer.headers,
          body: sourceOf(decoder === undefined ? answer.body : decoded(answer.body, decoder)),
          isDecoded: decoder !== undefined
        }
      }
  )
