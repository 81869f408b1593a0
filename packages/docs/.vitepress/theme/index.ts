import DefaultTheme from "vitepress/theme"
import type { Theme } from "vitepress"
import { defineAsyncComponent, h, onMounted } from "vue"
import ClientTabs from "./ClientTabs.vue"
import "./custom.css"
import Install from "./Install.vue"
import Sample from "./Sample.vue"

// These have runs of the library in them, which other pages do not need.
const Playground = defineAsyncComponent(() => import("./Playground.vue"))
const Result = defineAsyncComponent(() => import("./Result.vue"))

/** Loads the index of the search when the page has nothing else to do, so that the first search is as quick as the second. */
const warmSearch = () => {
  const whenIdle = globalThis.requestIdleCallback ?? ((run: () => void) => setTimeout(run, 2_000))
  // @ts-expect-error: VitePress makes this module while it builds the site.
  whenIdle(() => void import("@localSearchIndex").then(({ default: index }) => index.root()))
}

export default {
  extends: DefaultTheme,
  setup: () => onMounted(warmSearch),
  Layout: () =>
    h(DefaultTheme.Layout, null, {
      "home-hero-info-after": () => h(Install),
      "home-hero-image": () => h(Result)
    }),
  enhanceApp: ({ app }) => {
    app.component("ClientTabs", ClientTabs)
    app.component("Playground", Playground)
    app.component("Sample", Sample)
  }
} satisfies Theme
