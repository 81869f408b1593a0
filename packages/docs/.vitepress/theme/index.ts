import DefaultTheme from "vitepress/theme"
import type { Theme } from "vitepress"
import { defineAsyncComponent, h } from "vue"
import ClientTabs from "./ClientTabs.vue"
import "./custom.css"
import Sample from "./Sample.vue"

export default {
  extends: DefaultTheme,
  Layout: () => h(DefaultTheme.Layout, null, { "home-hero-image": () => h(Sample) }),
  enhanceApp: ({ app }) => {
    app.component("ClientTabs", ClientTabs)
    app.component(
      "Playground",
      defineAsyncComponent(() => import("./Playground.vue"))
    )
  }
} satisfies Theme
