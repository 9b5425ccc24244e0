<?php

// Not bcrypt, which cuts a password after 72 bytes.
return [
    'driver' => 'argon2id',
    'argon' => ['memory' => 8192, 'threads' => 1, 'time' => 2],
];
