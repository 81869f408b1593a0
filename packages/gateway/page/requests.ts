/** Shows the last requests, if the gateway remembers them, to those who have the token for them. */
import { compact, counted, dollars, span } from "floodgate/internal/words"
import type { GatewayStatus, RequestRecord } from "../src/page/status.ts"
import { at, figures, table, words } from "./elements.ts"

/** The token stays in this tab, like that of the gateway. */
const key = "floodgate-requests-token"
let token = sessionStorage.getItem(key)
const secret = at("secret") as HTMLInputElement

/** More rows than anybody reads. The fields find older ones. */
const maxRows = 100
const fields = ["model", "caller", "outcome"] as const

const off =
  "Off. With a token of its own in FLOODGATE_GATEWAY_REQUESTS_TOKEN (setting requestsToken), the gateway remembers the last 500 requests, without their content, and shows them here."

const known = <A>(value: A | null, text: (value: A) => string): string => (value === null ? "-" : text(value))

/** "refused 402, spendLimited", or "answered 200, 2 retries". */
const ended = ({ attempts, outcome, reason, status }: RequestRecord): string => {
  const parts = [status === null ? outcome : `${outcome} ${status}`]
  if (reason !== null) parts.push(reason)
  if (attempts > 1) parts.push(counted(attempts - 1, "retry", "retries"))
  return parts.join(", ")
}

/** "claude-sonnet-5 at azure", if the model has several places. */
const asked = ({ model, place }: RequestRecord): string => (place === null ? (model ?? "-") : `${model} at ${place}`)

const rowsOf = (requests: ReadonlyArray<RequestRecord>, isEverything: boolean): HTMLElement =>
  table(
    requests,
    [
      words("when", ({ at }) => new Date(at).toLocaleTimeString()),
      words("end", ended),
      words("model", asked),
      words("caller", ({ caller }) => caller ?? "not let in"),
      words("agent", ({ agent }) => agent ?? "-"),
      figures("waited", ({ waitedMillis }) => span(waitedMillis / 1_000)),
      figures("took", ({ millis }) => span(millis / 1_000)),
      figures("input", ({ inputTokens }) => known(inputTokens, compact)),
      figures("cached", ({ cachedTokens }) => known(cachedTokens, compact)),
      figures("output", ({ outputTokens }) => known(outputTokens, compact)),
      figures("dollars", (request) => known(request.dollars, dollars))
    ],
    isEverything ? "No request has ended yet." : "None of the last 500 requests is like this."
  )

/** Shows a note why there is no list, the field for the token, or the list. */
const show = (state: "off" | "closed" | "open"): void => {
  at("opening").hidden = state !== "closed"
  at("filter").hidden = state !== "open"
  at("requests").hidden = state !== "open"
  at("requestsNote").hidden = state === "closed"
  at("requestsNote").textContent = state === "off" ? off : ""
}

const ask = (why: string): void => {
  token = null
  sessionStorage.removeItem(key)
  at("refused").textContent = why
  show("closed")
}

const query = (): URLSearchParams => {
  const wanted = new URLSearchParams({ limit: `${maxRows}` })
  for (const name of fields) {
    const value = (at(name) as HTMLInputElement).value.trim()
    // Who types the beginning of a name means all names that begin so.
    if (value !== "") wanted.set(name, name === "outcome" ? value : `${value}*`)
  }
  return wanted
}

/** The rows as they are shown, and what they were asked with. */
let shown = ""
/** The latest request for rows: answers to earlier ones are not shown. */
let latest = 0

const load = async (): Promise<void> => {
  const wanted = query()
  const number = ++latest
  const response = await fetch(`requests?${wanted}`, { cache: "no-store", headers: { "x-floodgate-requests": token! } })
  const text = await response.text()
  if (number !== latest) return
  if (response.status === 401) return ask("The token is wrong. Try again.")
  if (response.status !== 200) return
  sessionStorage.setItem(key, token!)
  show("open")
  const { requests } = JSON.parse(text) as { readonly requests: ReadonlyArray<RequestRecord> }
  if (requests.length === maxRows) at("requestsNote").textContent = `The newest ${maxRows}. The fields find older ones.`
  // A table that stays the same keeps what the reader has selected in it.
  const rows = `${wanted} ${JSON.stringify(requests)}`
  if (rows === shown) return
  shown = rows
  at("requests").replaceChildren(rowsOf(requests, wanted.size === 1))
}

/** While the connection is lost, the page says so, and tries again. */
const reload = (): void => void load().catch(() => {})

/** Shows the requests that have ended since the state before. */
export const follow = ({ remembersRequests }: GatewayStatus): void => {
  if (!remembersRequests) return show("off")
  if (token === null) return show("closed")
  if (!document.hidden) reload()
}

at("opening").addEventListener("submit", (event) => {
  event.preventDefault()
  token = secret.value.trim()
  secret.value = ""
  at("refused").textContent = ""
  reload()
})
at("filter").addEventListener("submit", (event) => event.preventDefault())
at("filter").addEventListener("input", reload)
