/** What is sent through a gateway. The provider of `upstream.ts` reads the shape of its answer from the model's name. */
import { bodyOf } from "../support/bodies.ts"

export interface Cell {
  readonly name: string
  /** Several requests, because agents never send the same one twice. */
  readonly bodies: ReadonlyArray<Buffer>
  /** The most connections at which it is measured. Of large bodies, more would measure memory. */
  readonly most: number
}

/** A whole or streamed request of about so many bytes. The model comes first, where the provider looks for it. */
export const body = (model: string, size: number, stream = false): Buffer =>
  Buffer.from(JSON.stringify({ model: `claude-${model}`, stream, ...bodyOf(size) }))

const cell = (name: string, model: string, size: number, most = Infinity): Cell => ({
  name,
  bodies: Array.from({ length: 8 }, () => body(model, size, model !== "whole")),
  most
})

export const cells: Readonly<Record<string, () => Cell>> = {
  w4: () => cell("whole, 4 KB", "whole", 4_000),
  w100: () => cell("whole, 100 KB", "whole", 100_000, 64),
  w400: () => cell("whole, 400 KB", "whole", 400_000, 64),
  spread: () => cell("streamed with pauses", "spread", 4_000),
  burst: () => cell("streamed at once", "burst", 4_000)
}
