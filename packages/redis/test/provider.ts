/**
 * A provider in a thread of its own, for `fleet.ts`. It logs every call as it arrives, and answers later.
 *
 * On a busy machine this thread waits, and logs calls later than they arrived. So each entry has the two moments between which
 * the call arrived: the previous turn of the event loop, and the present one.
 */
import { createServer } from "node:http"
import { parentPort, workerData } from "node:worker_threads"

const { latencyMillis } = workerData as { readonly latencyMillis: number }

/** Milliseconds since the epoch, as in Redis. */
const now = () => performance.timeOrigin + performance.now()

/** When the last turns of the event loop began. A connection is accepted in one turn and read in the next. */
const turns = [now(), now(), now()] as [number, number, number]
setInterval(() => {
  turns[0] = turns[1]
  turns[1] = turns[2]
  turns[2] = now()
}, 1)

/** To the code that started this thread. */
const say = (message: object): void => {
  // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread has no origin: the rule thinks of windows
  parentPort!.postMessage(message)
}

let inFlight = 0
let peak = 0
const server = createServer((request, response) => {
  const from = turns[0]
  const at = now()
  if (request.method === "GET") {
    response.end("{}")
    return
  }
  let body = ""
  let open = true
  const end = () => {
    if (open) inFlight--
    open = false
  }
  peak = Math.max(peak, ++inFlight)
  response.on("close", end)
  request.on("data", (chunk) => (body += chunk))
  request.on("end", () => {
    say({ peak, entry: { from, at, ...(JSON.parse(body) as object) } })
    setTimeout(() => {
      end()
      response.end("{}")
    }, latencyMillis)
  })
})
server.keepAliveTimeout = 60_000
server.listen(0, "127.0.0.1", () => {
  const address = server.address()
  say({ port: typeof address === "object" && address !== null ? address.port : 0 })
})
