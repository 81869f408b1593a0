/** Bodies of requests: read as far as they may be, and counted as long as they are held. */
import * as Effect from "effect/Effect"
import type { IncomingMessage } from "node:http"

/** The bytes of all bodies that are held, in requests that wait or run. */
export interface Memory {
  held: number
  readonly most: number
}

/** A body that is not taken. */
export type Unread =
  /** It is larger than a body may be. */
  | "tooLarge"
  /** There is no room for it among those that are held. */
  | "full"

/** Reads a body. What it holds of the memory is given back by `release`. */
export const readBody = (
  request: IncomingMessage,
  memory: Memory,
  most: number
): { readonly body: Effect.Effect<Buffer, Unread>; readonly release: () => void } => {
  let held = 0
  return {
    release: () => {
      memory.held -= held
      held = 0
    },
    body: Effect.callback<Buffer, Unread>((resume) => {
      if (Number(request.headers["content-length"] ?? 0) > most) return resume(Effect.fail("tooLarge"))
      const chunks: Array<Buffer> = []
      request.on("data", (chunk: Buffer) => {
        held += chunk.length
        memory.held += chunk.length
        if (held <= most && memory.held <= memory.most) return void chunks.push(chunk)
        request.removeAllListeners("data").pause()
        resume(Effect.fail(held > most ? "tooLarge" : "full"))
      })
      request.on("end", () => resume(Effect.succeed(chunks.length === 1 ? chunks[0]! : Buffer.concat(chunks))))
      // A client that hangs up interrupts the whole exchange.
      request.on("error", () => {})
    })
  }
}
