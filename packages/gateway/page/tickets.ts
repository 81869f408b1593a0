/** Shows the calls that are parked until a reset, and lets operators cancel them. */
import { compact, counted } from "floodgate/internal/words"
import type { GatewayStatus } from "../src/page/status.ts"
import { at, figures, make, table, words } from "./elements.ts"

type Ticket = GatewayStatus["tickets"]["list"][number]

const admin = at("canceller") as HTMLInputElement
const states: Partial<Record<Ticket["state"], string>> = { unknown: "unknown outcome" }

/** The tickets as they are shown. Rows are drawn again only if they change, so that a button stays under the pointer. */
let shown = ""

const button = (text: string, label: string, body: object): HTMLElement =>
  make("button", { type: "button", "aria-label": label, "data-cancel": JSON.stringify(body) }, text)

const rowsOf = (list: ReadonlyArray<Ticket>): HTMLElement => {
  const whole = table(list, [
    words("state", ({ state }) => states[state] ?? state),
    words("until", ({ at }) => new Date(at).toLocaleString()),
    words("key", ({ key }) => key),
    words("agent", ({ agent }) => agent),
    figures("bytes", ({ bytes }) => bytes),
    figures("order", ({ order }) => order)
  ])
  whole.querySelector("tr")!.append(make("th"))
  for (const [index, row] of Array.from(whole.querySelectorAll("tbody tr")).entries()) {
    const { agent, id, key, state } = list[index]!
    const canCancel = state === "waiting" || state === "due"
    const buttons = [
      button("Cancel", `Cancel the call of ${agent}`, { cancel: id }),
      button("All of its key", `Cancel all calls of ${key}`, { cancelKey: key })
    ]
    row.append(make("td", { class: "buttons" }, ...(canCancel ? buttons : [])))
  }
  return whole
}

/** Shows the tickets if there are any. */
export const follow = ({ tickets: { list, total } }: GatewayStatus): void => {
  const now = JSON.stringify(list) + total
  if (now === shown) return
  shown = now
  at("parked").hidden = total === 0
  if (total === 0) return
  const more = total - list.length
  at("parkedNote").textContent = more > 0 ? `The first of ${compact(total)}.` : counted(total, "ticket")
  at("tickets").replaceChildren(rowsOf(list))
}

const cancel = async (body: string, token: string | null): Promise<void> => {
  if (admin.value === "") {
    at("cancelError").textContent = "Enter the admin token of the gateway to cancel."
    return admin.focus()
  }
  at("cancelError").textContent = ""
  const response = await fetch("tickets", {
    method: "POST",
    cache: "no-store",
    headers: { "x-floodgate-admin": admin.value.trim(), ...(token === null ? {} : { "x-floodgate-token": token }) },
    body
  })
  if (response.status === 200) return
  const { error } = JSON.parse(await response.text()) as Readonly<Record<string, unknown>>
  at("cancelError").textContent = String(error)
}

/** Cancels whenever a button is pressed. */
export const start = (token: () => string | null): void => {
  at("cancelling").addEventListener("submit", (event) => event.preventDefault())
  at("tickets").addEventListener("click", (event) => {
    const body = (event.target as HTMLElement).dataset["cancel"]
    if (body === undefined) return
    cancel(body, token()).catch(() => void (at("cancelError").textContent = "The gateway does not answer. Try again."))
  })
}
