/** Asks for the token if the gateway has one, and shows the state of the gateway as it changes. */
import type { GatewayStatus } from "../src/page/status.ts"
import { at } from "./elements.ts"
import * as Keys from "./keys.ts"
import { follow as followRequests } from "./requests.ts"
import { show } from "./show.ts"
import * as Tickets from "./tickets.ts"

/** The token stays in this tab. It is sent in a header, so that no address, and no log of addresses, has it. */
const key = "floodgate-token"
let token = sessionStorage.getItem(key)
const field = at("token") as HTMLInputElement

const say = (text: string, kind: "" | "lost"): void => {
  at("state").className = kind
  at("state").textContent = text
}

const received = (text: string): void => {
  const status: GatewayStatus = JSON.parse(text)
  show(status)
  followRequests(status)
  Keys.follow(status)
  Tickets.follow(status)
  const names = status.upstreams.map(({ name }) => name).join(", ")
  say(`${names} \u00b7 ${new Date(status.at).toLocaleTimeString()}`, "")
}

const ask = (why: string): void => {
  token = null
  sessionStorage.removeItem(key)
  at("shown").hidden = true
  at("auth").hidden = false
  at("wrong").textContent = why
  say("", "")
  field.focus()
}

/** Shows each state until the gateway closes the stream. */
const follow = async (states: ReadableStream<Uint8Array<ArrayBuffer>>): Promise<void> => {
  let rest = ""
  for await (const text of states.pipeThrough(new TextDecoderStream())) {
    const events = (rest + text).split("\n\n")
    rest = events.pop() ?? ""
    // The latest is the whole state.
    const last = events.pop()
    if (last !== undefined) received(last.replace(/^data: /, ""))
  }
}

const tryAgainMillis = 2_000

// An EventSource could not send the header.
const connect = async (): Promise<void> => {
  let why = "connection lost, trying again"
  try {
    const headers = token === null ? {} : { "x-floodgate-token": token }
    const response = await fetch("events", { cache: "no-store", headers })
    if (response.status === 401) return ask(token === null ? "" : "The token is wrong. Try again.")
    if (response.status === 200 && response.body !== null) {
      if (token !== null) sessionStorage.setItem(key, token)
      at("auth").hidden = true
      at("shown").hidden = false
      await follow(response.body)
    } else why = await response.text()
  } catch {
    // A gateway that ends breaks the stream off.
  }
  say(why, "lost")
  setTimeout(connect, tryAgainMillis)
}

at("auth").addEventListener("submit", (event) => {
  event.preventDefault()
  token = field.value.trim()
  field.value = ""
  void connect()
})

Keys.start(() => token)
Tickets.start(() => token)
void connect()
