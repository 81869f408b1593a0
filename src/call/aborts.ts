/**
 * Waits for signals of callers. However many calls share a signal, it has one listener: an event target walks all of its listeners to add
 * or remove one, so that with 20,000 of them this blocked the event loop for seconds.
 */

/** The callbacks that wait for a signal, and the one listener that calls them. */
interface Waiting {
  readonly callbacks: Set<() => void>
  readonly listener: () => void
}

const waiting = new WeakMap<AbortSignal, Waiting>()

/** Calls all of them, also after one has thrown, and then throws the first error. */
const callAll = (callbacks: ReadonlyArray<() => void>): void => {
  const thrown: Array<unknown> = []
  for (const callback of callbacks) {
    try {
      callback()
    } catch (error) {
      thrown.push(error)
    }
  }
  if (thrown.length > 0) throw thrown[0]
}

const listen = (signal: AbortSignal): Waiting => {
  const callbacks = new Set<() => void>()
  const listener = (): void => {
    waiting.delete(signal)
    callAll(Array.from(callbacks))
  }
  const made = { callbacks, listener }
  waiting.set(signal, made)
  signal.addEventListener("abort", listener, { once: true })
  return made
}

/**
 * Calls a function once when a signal aborts, in the order of such requests. Returns the function that withdraws the request. A signal that
 * has aborted already calls nothing.
 */
export const onAbort = (signal: AbortSignal, aborted: () => void): (() => void) => {
  if (signal.aborted) return () => {}
  const own = waiting.get(signal) ?? listen(signal)
  // A function may be given twice, and each request is withdrawn by itself.
  const callback = (): void => aborted()
  own.callbacks.add(callback)
  return () => {
    if (!own.callbacks.delete(callback) || own.callbacks.size > 0 || waiting.get(signal) !== own) return
    waiting.delete(signal)
    signal.removeEventListener("abort", own.listener)
  }
}
