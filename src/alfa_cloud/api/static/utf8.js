// Swagger UI keeps the btoa it finds when it loads, and that one throws at letters outside Latin-1: the request would
// never reach the interceptor in start.js, which writes the header that counts.
(function () {
  "use strict";
  const original = window.btoa.bind(window);
  window.basicUtf8 = function (text) {
    const bytes = new TextEncoder().encode(text.normalize("NFC"));
    return original(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));
  };
  window.btoa = function (text) {
    const value = String(text);
    return /[^\u0000-\u00ff]/.test(value) ? window.basicUtf8(value) : original(value);
  };
})();
