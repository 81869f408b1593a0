/** Captures what Floodgate writes to the console while a call waits. */
import { vi } from "@effect/vitest"
import * as Floodgate from "floodgate/promise"

/** The line for that call. */
export const waiting = 'floodgate: waiting n s for input tokens of pool "default": 1 call, n of 1K left'

const figures = (line: unknown): string => String(line).replace(/\d+(?= s | of )/g, "n")

/** Makes a call that waits and is then cancelled; returns what was written to each stream, without times. */
export const logged = async (options: Floodgate.Options, isLogged: boolean) => {
  const [errors, output]: [Array<unknown>, Array<unknown>] = [[], []]
  vi.spyOn(console, "error").mockImplementation((line: unknown) => void errors.push(figures(line)))
  vi.spyOn(console, "log").mockImplementation((line: unknown) => void output.push(line))
  try {
    const controller = new AbortController()
    const waits: Array<string> = []
    await using floodgate = Floodgate.create({
      limits: { inputTokens: { perMinute: 1_000, window: "bucket" } },
      onEvent: ({ type }) => waits.push(type),
      ...options
    })
    await floodgate.run({ model: "m", inputTokens: 1_000 }, async () => 1)
    const call = { model: "m", inputTokens: 500, signal: controller.signal }
    const left = floodgate.run(call, async () => 1).catch(() => {})
    await vi.waitUntil(() => waits.length > 0 && (!isLogged || errors.length > 0), { timeout: 20_000 })
    controller.abort()
    await left
    return { errors, output }
  } finally {
    vi.restoreAllMocks()
  }
}
