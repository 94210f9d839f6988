"""Renders a page in headless Chromium, and prints what it observed as JSON.

    chromium.py PAGE FOLDER WIDTH:THEME...

For each width in CSS pixels and theme (light or dark): takes a screenshot of the whole page,
FOLDER/WIDTH-THEME.png, clicks the button for the theme, and opens every tab and every `details`.
Talks to Chromium over pipes (--remote-debugging-pipe), so it needs no other library.
"""

import base64
import json
import os
import pathlib
import select
import subprocess
import sys
import tempfile

# How wide the page is, which elements are too wide, and which text is cut off or too small.
PROBE = """(() => {
  const width = document.documentElement.clientWidth;
  const name = (e) => `${e.tagName}.${e.getAttribute('class') ?? ''} ${e.textContent.slice(0, 40)}`;
  const scrolls = (e) => e.closest('.scroll, pre');
  const visible = [...document.querySelectorAll('body *')].filter((e) => e.getClientRects().length);
  return {
    width,
    scrollWidth: document.documentElement.scrollWidth,
    outside: visible.filter((e) => !scrolls(e) && e.getBoundingClientRect().right > width + 0.5)
      .map(name),
    small: visible.filter((e) => e.matches('svg text') &&
      e.getBoundingClientRect().height < 8).map(name),
    background: getComputedStyle(document.body).backgroundColor,
    color: getComputedStyle(document.body).color,
  };
})()"""

OPEN_ALL = """(() => {
  document.querySelectorAll('details').forEach((e) => { e.open = true; });
  document.querySelectorAll('.tabs').forEach((tabs) => {
    const all = tabs.querySelectorAll(':scope > input');
    all[all.length - 1].click();
  });
})()"""


# Chromium answers within this time in seconds, also on a busy machine.
TIMEOUT = 120


class Browser:
    def __init__(self, profile):
        commands_read, self.commands = os.pipe()
        self.answers, answers_write = os.pipe()

        def set_up_pipes():
            # Chromium reads commands from 3 and writes answers to 4.
            source, target = os.dup(commands_read), os.dup(answers_write)
            os.dup2(source, 3)
            os.dup2(target, 4)

        self.process = subprocess.Popen(
            [
                "chromium",
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--hide-scrollbars",
                "--remote-debugging-pipe",
                f"--user-data-dir={profile}",
            ],
            preexec_fn=set_up_pipes,
            close_fds=False,
            stderr=subprocess.DEVNULL,
        )
        os.close(commands_read)
        os.close(answers_write)
        self.buffer, self.number, self.events, self.session = b"", 0, [], None

    def read(self):
        while b"\0" not in self.buffer:
            if not select.select([self.answers], [], [], TIMEOUT)[0]:
                sys.exit(f"Chromium did not answer within {TIMEOUT} s")
            part = os.read(self.answers, 1 << 20)
            if not part:
                sys.exit("Chromium ended before it answered")
            self.buffer += part
        message, self.buffer = self.buffer.split(b"\0", 1)
        return json.loads(message)

    def call(self, method, **parameters):
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.commands, json.dumps(message).encode() + b"\0")
        while True:
            answer = self.read()
            if answer.get("id") == self.number:
                if "error" in answer:
                    sys.exit(f"{method}: {answer['error']}")
                return answer["result"]
            self.events.append(answer)

    def wait(self, method):
        while not any(event["method"] == method for event in self.events):
            self.events.append(self.read())

    def evaluate(self, expression):
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        if "exceptionDetails" in result:
            sys.exit(f"{expression}: {result['exceptionDetails']}")
        return result["result"].get("value")


def screenshot(browser, path):
    size = browser.call("Page.getLayoutMetrics")["cssContentSize"]
    clip = {"x": 0, "y": 0, "width": size["width"], "height": min(size["height"], 16000), "scale": 1}
    image = browser.call("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
    path.write_bytes(base64.b64decode(image["data"]))


def observe(browser, url, folder, width, theme):
    browser.events.clear()
    browser.call("Emulation.setDeviceMetricsOverride", width=width, height=900,
                 deviceScaleFactor=1, mobile=width < 600)
    features = [{"name": "prefers-color-scheme", "value": theme}]
    browser.call("Emulation.setEmulatedMedia", features=features)
    browser.call("Page.navigate", url=url)
    browser.wait("Page.loadEventFired")
    observed = {"width": width, "theme": theme, "page": browser.evaluate(PROBE)}
    screenshot(browser, folder / f"{width}-{theme}.png")
    browser.evaluate("document.getElementById('theme').click()")
    observed["toggled"] = browser.evaluate(PROBE)
    browser.evaluate(OPEN_ALL)
    observed["opened"] = browser.evaluate(PROBE)
    observed["requests"] = [
        event["params"]["request"]["url"]
        for event in browser.events
        if event["method"] == "Network.requestWillBeSent"
    ]
    observed["messages"] = [
        event["params"]
        for event in browser.events
        if event["method"] in ("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown")
    ]
    return observed


def main():
    page, folder = pathlib.Path(sys.argv[1]).resolve(), pathlib.Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser = Browser(profile)
        try:
            target = browser.call("Target.createTarget", url="about:blank")["targetId"]
            attached = browser.call("Target.attachToTarget", targetId=target, flatten=True)
            browser.session = attached["sessionId"]
            for domain in ("Page", "Network", "Log", "Runtime"):
                browser.call(f"{domain}.enable")
            observed = []
            for argument in sys.argv[3:]:
                width, theme = argument.split(":")
                observed.append(observe(browser, page.as_uri(), folder, int(width), theme))
            browser.events.clear()
            browser.call("Page.navigate", url=page.as_uri())
            browser.wait("Page.loadEventFired")
            pdf = browser.call("Page.printToPDF", preferCSSPageSize=True, printBackground=True)
            (folder / "print.pdf").write_bytes(base64.b64decode(pdf["data"]))
            print(json.dumps(observed))
        finally:
            browser.process.kill()
            browser.process.wait()


main()
